"""Cells run one after another, each in a process of its own; finished ones are not run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from s5_adapters.bench.spec import OWN, Cell
from s5_adapters.core.files.weights import write_whole

RUNS_NAME = "runs"
WEIGHTS_NAME = "weights"
SWEEP_NAME = "sweep.json"
LAST_LINES = 20


class Outcome(NamedTuple):
    """The outcome of a cell."""

    cell: Cell
    result: Path | None
    """Its result; None where it failed."""
    reason: str
    """Why it failed, in one line; empty where it did not."""


def run_sweep(
    cells: Iterable[Cell],
    folder: Path,
    *,
    command: str,
    timeout: float,
    say: Callable[[str], None] = print,
) -> list[Outcome]:
    """Run every cell that the folder holds no result of.

    A cell that fails, crashes or runs out of time is reported, leaves what it printed in `runs/NAME.log`, and
    is tried again by the next sweep over the same folder.

    Args:
        cells: what to run.
        folder: made if need be: `runs/NAME.json` for each result, `weights/`, `sweep.json`.
        command: how the sweep was started, for the report.
        timeout: seconds that a cell may take.
        say: is told of every cell.
    """
    cells = list(cells)
    for name in (RUNS_NAME, WEIGHTS_NAME):
        (folder / name).mkdir(parents=True, exist_ok=True)
    wanted = {"command": command, "cells": [cell.to_dict() for cell in cells]}
    write_whole(folder / SWEEP_NAME, (json.dumps(wanted, indent=1) + "\n").encode())
    outcomes = []
    for number, cell in enumerate(cells, start=1):
        result = folder / RUNS_NAME / f"{cell.name}.json"
        label = f"[{number}/{len(cells)}] {cell.name}"
        if result.exists():
            say(f"{label}: done before")
            outcomes.append(Outcome(cell, result, ""))
            continue
        began = time.perf_counter()
        reason = run_in_process(cell, folder, timeout)
        seconds = time.perf_counter() - began
        say(f"{label}: {f'failed: {reason}' if reason else 'done'} ({seconds:.0f} s)")
        outcomes.append(Outcome(cell, None if reason else result, reason))
    return outcomes


def run_in_process(cell: Cell, folder: Path, timeout: float) -> str:
    """Run one cell; return why it failed, in one line, or None."""
    runs = folder / RUNS_NAME
    description, log = runs / f"{cell.name}.cell", runs / f"{cell.name}.log"
    description.write_text(json.dumps(cell.to_dict()))
    weights = "-" if cell.memory == OWN else str(weights_file(cell, folder))
    arguments = [str(description), weights, str(runs / f"{cell.name}.json")]
    command = [sys.executable, "-m", "s5_adapters.bench.cell", *arguments]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment(cell), start_new_session=True
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)  # and what it started: nothing may compute while the next cell is timed
    description.unlink()
    if code == 0:
        log.unlink()
        return ""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1].strip() if lines else "printed nothing"
    return f"took longer than {timeout:.0f} s" if code is None else f"exit code {code}: {last}"


def weights_file(cell: Cell, folder: Path) -> Path:
    """Return the file of the policy that a cell starts from: one for each problem, memory and seed."""
    return folder / WEIGHTS_NAME / f"{cell.spec.ppo.env_id}-{cell.memory}-seed{cell.seed}.safetensors"


def environment(cell: Cell) -> Mapping[str, str]:
    """Return a cell's environment variables: one thread for torch and BLAS, its device, no cache."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    own = {"JAX_ENABLE_COMPILATION_CACHE": "false", "XLA_PYTHON_CLIENT_PREALLOCATE": "false", **threads}
    own["JAX_PLATFORMS"] = "cpu" if cell.device == "cpu" else "cuda,cpu"
    return {**os.environ, **own}


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Read the results in a folder, in the order of their names.

    Raises:
        ValueError: one line, where there are none or one is damaged.
    """
    files = sorted((folder / RUNS_NAME).glob("*.json"))
    if not files:
        raise ValueError(f"{folder}: no {RUNS_NAME}/*.json there, expected the folder of a sweep")
    results = []
    for file in files:
        try:
            results.append(json.loads(file.read_text()))
        except ValueError as error:
            raise ValueError(f"{file}: not the result of a run: {error}") from None
    return results


def read_failures(folder: Path) -> dict[str, str]:
    """Read which cells of a folder's sweep have no result: their names, and the last line of each."""
    if not (folder / SWEEP_NAME).is_file():
        return {}
    failures = {}
    for values in json.loads((folder / SWEEP_NAME).read_text())["cells"]:
        name = Cell.from_dict(values).name
        runs, last = folder / RUNS_NAME, "not run yet"
        if (runs / f"{name}.json").exists():
            continue
        if (runs / f"{name}.log").exists():
            lines = (runs / f"{name}.log").read_text(errors="replace").split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "printed nothing")
        failures[name] = last
    return failures


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()
