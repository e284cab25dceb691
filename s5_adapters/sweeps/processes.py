"""Running jobs, one after another or a few at a time, each in a process of its own; what is done is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from s5_adapters.core.files.weights import write_whole
from s5_adapters.sweeps.folder import (
    RUNS_NAME,
    description_file,
    last_line,
    log_file,
    result_file,
    write_sweep,
)

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
    side_by_side: int = 1,
    say: Callable[[str], None] = print,
    watch: Callable[[int, Sequence[str]], object] = lambda behind, names: None,
) -> list[Outcome]:
    """Run every job that the folder holds no result of.

    A job that fails, crashes or runs out of time is reported, leaves what it printed in ``runs/NAME.log``,
    and is tried again by the next sweep over the same folder.

    Args:
        jobs: what to run.
        folder: made if need be: ``runs/NAME.json`` for each result, ``sweep.json``.
        command: how the sweep was started, for the report.
        timeout: seconds that a job may take.
        side_by_side: how many run at a time, each on its own share of the cores where the system can hold it
            to that (Linux); at most as many as there are cores.
        say: is told of every job.
        watch: is called with the number of jobs behind and the names of those that run, when one starts and
            then about twice a second.
    """
    (folder / RUNS_NAME).mkdir(parents=True, exist_ok=True)
    write_sweep(folder, command, {job.name: job.description for job in jobs})
    outcomes: dict[int, Outcome] = {}
    waiting, running = list(enumerate(jobs)), list[_Running]()
    shares = _shares_of_cores(side_by_side)

    def note(number: int, what: str, reason: str = "") -> None:
        job = jobs[number]
        outcomes[number] = Outcome(job.name, None if reason else result_file(folder, job.name), reason)
        say(f"[{number + 1}/{len(jobs)}] {job.name}: {what}")

    try:
        while waiting or running:
            while waiting and shares:
                number, job = waiting.pop(0)
                if result_file(folder, job.name).exists():
                    note(number, "done before")
                else:
                    running.append(_Running(number, job, folder, timeout, shares.pop(0)))
            for one in tuple(running):
                watch(len(outcomes), [other.job.name for other in running])
                reason = one.wait(_LOOK_SECONDS / len(running))
                if reason is not None:
                    running.remove(one)
                    shares.append(one.cores)
                    what = f"failed: {reason}" if reason else "done"
                    note(one.number, f"{what} ({one.seconds:.0f} s)", reason)
    finally:
        for one in running:
            one.end()
    return [outcomes[number] for number in range(len(jobs))]


class _Running:
    """A job under way, in a process of its own on some of the cores; on all without any."""

    def __init__(self, number: int, job: Job, folder: Path, timeout: float, cores: frozenset[int]):
        self.number, self.job, self.cores = number, job, cores
        self._description, self._log = description_file(folder, job.name), log_file(folder, job.name)
        self._description.write_text(json.dumps(job.description))
        self._timeout, self._began = timeout, time.monotonic()
        command = [sys.executable, "-m", job.module, str(self._description)]
        command += [str(result_file(folder, job.name)), *job.arguments]
        variables = {**os.environ, **job.environment, _PARENT: str(os.getpid())}
        with self._log.open("w") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=output, env=variables, start_new_session=True
            )
        if cores:  # before it has counted them, and begun as many threads
            os.sched_setaffinity(self._process.pid, cores)

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self._began

    def wait(self, seconds: float) -> str | None:
        """Wait a moment; returns None while it runs, then why it failed, in one line, or nothing."""
        left = self._timeout - self.seconds
        try:
            code = self._process.wait(max(0.0, min(left, seconds)))
        except subprocess.TimeoutExpired:
            if left > seconds:
                return None
            code = None
        self.end()
        self._description.unlink()
        if code == 0:
            self._log.unlink()
            return ""
        late = f"took longer than {self._timeout:.0f} s"
        return late if code is None else f"exit code {code}: {last_line(self._log)}"

    def end(self) -> None:
        """End it and what it started: nothing may compute while the next job is timed."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait()


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


def _shares_of_cores(count: int) -> list[frozenset[int]]:
    """Deal the cores out to so many jobs; empty shares where one has all, or none can be held to its."""
    if count == 1 or not hasattr(os, "sched_getaffinity"):
        return [frozenset()] * count
    cores = sorted(os.sched_getaffinity(0))
    return [frozenset(cores[i::count]) for i in range(count)]


def _end_with_the_sweep() -> None:
    """End this process when the sweep that started it is gone: it may be killed, and is then started anew."""
    parent = int(os.environ.get(_PARENT, os.getppid()))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
