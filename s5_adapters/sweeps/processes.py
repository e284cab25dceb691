"""Running jobs one after another, each in a process of its own; what is done already is not done again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from s5_adapters.core.files.weights import write_whole
from s5_adapters.sweeps.folder import RUNS_NAME, last_line, result_file, write_sweep

_PARENT = "S5_ADAPTERS_SWEEP"
_LOOK_SECONDS = 0.5


class Job(NamedTuple):
    """A program that reads what to do from one JSON file and writes its result into another.

    It is started as ``python -m MODULE DESCRIPTION.json RESULT.json ARGUMENTS...``.
    """

    name: str
    """A file name, different for jobs that differ in anything."""
    description: Mapping[str, Any]
    module: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}
    """Variables beside those of this process."""


class Outcome(NamedTuple):
    """The outcome of a job."""

    name: str
    result: Path | None
    """Its result; None where it failed."""
    reason: str
    """Why it failed, in one line; empty where it did not."""


def run_jobs(
    jobs: Sequence[Job],
    folder: Path,
    *,
    command: str,
    timeout: float,
    say: Callable[[str], None] = print,
    watch: Callable[[int, str], object] = lambda behind, name: None,
) -> list[Outcome]:
    """Run every job that the folder holds no result of.

    A job that fails, crashes or runs out of time is reported, leaves what it printed in ``runs/NAME.log``,
    and is tried again by the next sweep over the same folder.

    Args:
        jobs: what to run.
        folder: made if need be: ``runs/NAME.json`` for each result, ``sweep.json``.
        command: how the sweep was started, for the report.
        timeout: seconds that a job may take.
        say: is told of every job.
        watch: is called with the number of jobs behind and the name of the one that runs, when it starts and
            then about twice a second.
    """
    (folder / RUNS_NAME).mkdir(parents=True, exist_ok=True)
    write_sweep(folder, command, {job.name: job.description for job in jobs})
    outcomes = []
    for number, job in enumerate(jobs, start=1):
        result = result_file(folder, job.name)
        label = f"[{number}/{len(jobs)}] {job.name}"
        if result.exists():
            say(f"{label}: done before")
            outcomes.append(Outcome(job.name, result, ""))
            continue
        began = time.perf_counter()
        reason = run_in_process(job, folder, timeout, partial(watch, number - 1, job.name))
        seconds = time.perf_counter() - began
        say(f"{label}: {f'failed: {reason}' if reason else 'done'} ({seconds:.0f} s)")
        outcomes.append(Outcome(job.name, None if reason else result, reason))
    return outcomes


def run_in_process(job: Job, folder: Path, timeout: float, look: Callable[[], object] = lambda: None) -> str:
    """Run one job, looking now and then; returns why it failed, in one line, or nothing."""
    runs = folder / RUNS_NAME
    description, log = runs / f"{job.name}.cell", runs / f"{job.name}.log"
    description.write_text(json.dumps(job.description))
    command = [sys.executable, "-m", job.module, str(description), str(result_file(folder, job.name))]
    variables = {**os.environ, **job.environment, _PARENT: str(os.getpid())}
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, *job.arguments], stdout=output, stderr=output, env=variables, start_new_session=True
        )
        try:
            code = _wait(process, timeout, look)
        finally:
            _end(process)  # and what it started: nothing may compute while the next job is timed
    description.unlink()
    if code == 0:
        log.unlink()
        return ""
    return f"took longer than {timeout:.0f} s" if code is None else f"exit code {code}: {last_line(log)}"


def job_main(
    run: Callable[[Mapping[str, Any], Sequence[str]], Mapping[str, Any]],
    afterwards: Callable[[Sequence[str]], None] = lambda arguments: None,
) -> int:
    """Be the program of a job: ``run(description, further arguments)`` gives what JSON can hold.

    Once that is written, ``afterwards(further arguments)`` may clear away what it came from.
    """
    _end_with_the_sweep()
    description, result, *arguments = sys.argv[1:]
    found = run(json.loads(Path(description).read_text()), arguments)
    write_whole(result, (json.dumps(found) + "\n").encode())
    afterwards(arguments)
    return 0


def device_environment(device: str) -> dict[str, str]:
    """Return the variables of a job on "cpu" or "gpu": one thread for torch and BLAS, memory as needed."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    platforms = "cpu" if device == "cpu" else "cuda,cpu"
    return {**threads, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "JAX_PLATFORMS": platforms}


def require_gpu(*libraries: str) -> None:
    """Look for a GPU in processes of their own: this one must not hold its memory while jobs run.

    Args:
        libraries: of "JAX" and "torch", those that must find one.

    Raises:
        ValueError: one of them finds none.
    """
    programs = {
        "JAX": "import jax; jax.devices('gpu')",
        "torch": "import torch; torch.zeros(1, device='cuda')",
    }
    for name in libraries:
        if subprocess.run([sys.executable, "-c", programs[name]], capture_output=True).returncode:
            raise ValueError(f"device: got 'gpu', but {name} finds none on this machine")


def _wait(process: subprocess.Popen[bytes], timeout: float, look: Callable[[], object]) -> int | None:
    """Wait for the exit code; None where it took too long."""
    end = time.monotonic() + timeout
    while (left := end - time.monotonic()) > 0:
        look()
        try:
            return process.wait(min(left, _LOOK_SECONDS))
        except subprocess.TimeoutExpired:
            continue
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def _end_with_the_sweep() -> None:
    """End this process when the sweep that started it is gone: it may be killed, and is then started anew."""
    parent = int(os.environ.get(_PARENT, os.getppid()))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
