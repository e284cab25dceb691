"""The folder of a sweep: ``runs/NAME.json`` of what is done, ``NAME.log`` of what failed, ``sweep.json``."""

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


def write_sweep(folder: Path, command: str, wanted: Mapping[str, Mapping[str, Any]]) -> None:
    """Note how a sweep was started and the runs that it wants, by name."""
    text = json.dumps({"command": command, "cells": wanted}, indent=1) + "\n"
    write_whole(folder / SWEEP_NAME, text.encode())


def read_command(folder: Path) -> str | None:
    """Read the command that started a folder's sweep last; None where it is not known."""
    sweep = folder / SWEEP_NAME
    return str(json.loads(sweep.read_text())["command"]) if sweep.is_file() else None


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
    """Find the wanted runs of a folder without a result: by name, the last line that each printed."""
    if not (folder / SWEEP_NAME).is_file():
        return {}
    failures = {}
    for name in json.loads((folder / SWEEP_NAME).read_text())["cells"]:
        log = folder / RUNS_NAME / f"{name}.log"
        if not result_file(folder, name).exists():
            failures[name] = last_line(log) if log.exists() else "not run yet"
    return failures


def last_line(log: Path) -> str:
    """Return the last line of a log that says anything."""
    lines = (line.strip() for line in reversed(log.read_text(errors="replace").split("\n")))
    return next((line for line in lines if line), "printed nothing")
