"""The folder of a sweep: ``runs/NAME.json`` of what is done, ``NAME.log`` of what failed, ``sweep.json``.

A run under way also has ``NAME.cell``, which says what to do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s5_adapters.core.files.weights import write_whole

RUNS_NAME = "runs"
SWEEP_NAME = "sweep.json"


def result_file(folder: Path, name: str) -> Path:
    """Return the file that the result of a run goes into."""
    return folder / RUNS_NAME / f"{name}.json"


def description_file(folder: Path, name: str) -> Path:
    """Return the file that says what a run is to do, there until it has ended."""
    return folder / RUNS_NAME / f"{name}.cell"


def log_file(folder: Path, name: str) -> Path:
    """Return the file that a run prints into, kept where it failed."""
    return folder / RUNS_NAME / f"{name}.log"


def write_sweep(folder: Path, command: str, wanted: Mapping[str, Mapping[str, Any]]) -> None:
    """Note how a sweep was started and the runs that it wants, by name, beside what earlier ones left.

    Raises:
        ValueError: one line, where an earlier note is damaged.
    """
    commands, cells = _read_sweep(folder)
    # Of what an earlier command wanted and this one does not, that which was begun is still missing.
    missing = {
        name: description
        for name, description in cells.items()
        if log_file(folder, name).exists() and not result_file(folder, name).exists()
    }
    told = {
        "commands": [*(earlier for earlier in commands if earlier != command), command],
        "cells": missing | dict(wanted),
    }
    write_whole(folder / SWEEP_NAME, (json.dumps(told, indent=1) + "\n").encode())


def read_commands(folder: Path) -> list[str]:
    """Read the commands that made a folder, each once, the last one last."""
    return _read_sweep(folder)[0]


def _read_sweep(folder: Path) -> tuple[list[str], dict[str, Any]]:
    file = folder / SWEEP_NAME
    if not file.is_file():
        return [], {}
    try:
        told = json.loads(file.read_text())
        return list(told["commands"]), dict(told["cells"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not the note of a sweep: {error!r}") from None


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
            results[-1]["machine"]["versions"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file}: not the result of a run: {error!r}") from None
    return results


def read_failures(folder: Path) -> dict[str, str]:
    """Find the wanted runs of a folder without a result: by name, why, or the last line that each printed."""
    wanted = _read_sweep(folder)[1]
    return {name: _why(folder, name) for name in wanted if not result_file(folder, name).exists()}


def _why(folder: Path, name: str) -> str:
    log = log_file(folder, name)
    if not log.exists():
        return "not run yet"
    return "interrupted, or under way" if description_file(folder, name).exists() else last_line(log)


def last_line(log: Path) -> str:
    """Return the last line of a log that says anything."""
    lines = (line.strip() for line in reversed(log.read_text(errors="replace").split("\n")))
    return next((line for line in lines if line), "printed nothing")
