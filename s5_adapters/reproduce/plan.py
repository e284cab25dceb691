"""The plan of a sweep: its cells with their sizes, and roughly how long they take."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from s5_adapters.purejax.progress import format_duration
from s5_adapters.reproduce.spec import Cell, Entry
from s5_adapters.sweeps.folder import RUNS_NAME, read_results, result_file


def runner_of(entry: Entry) -> ModuleType:
    """Return the module that runs an entry."""
    return importlib.import_module(f"s5_adapters.reproduce.runners.{entry.runner}")


def print_plan(cells: Sequence[Cell], folder: Path) -> None:
    """Print a line for each entry: seeds wanted and done, parameters, steps, seconds; then the sum.

    Seconds are those of the entry's runs in the folder where there are any, and a rough estimate elsewhere.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("task", "memory", "setting"):
        table.add_column(column, no_wrap=True)
    for column in ("seeds", "done", "parameters", "state", "steps", "seconds a seed"):
        table.add_column(column, justify="right", no_wrap=True)
    measured = _measured(folder)
    total = 0.0
    for label in dict.fromkeys(cell.entry.label for cell in cells):
        mine = [cell for cell in cells if cell.entry.label == label]
        entry = mine[0].entry
        sizes = runner_of(entry).describe(entry.work)
        seconds = measured.get(label) or runner_of(entry).estimate(entry.work)
        wanted = sum(len(cell.seeds) for cell in mine)
        done = sum(len(cell.seeds) for cell in mine if result_file(folder, cell.name).exists())
        total += seconds * (wanted - done)
        about = "" if label in measured else "about "
        counts = (f"{sizes[name]:,}" for name in ("parameters", "state_numbers", "steps"))
        table.add_row(
            entry.task, entry.memory, entry.setting, str(wanted), str(done), *counts, f"{about}{seconds:,.0f}"
        )
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)
    in_turn = f"about {format_duration(total)} in turn for what is not done"
    print(f"{len(cells)} cells, {in_turn}, into {folder}")


def _measured(folder: Path) -> dict[str, float]:
    """Average the seconds a seed of the entries with results, compiling included."""
    found: dict[str, list[float]] = {}
    for result in read_results(folder) if any((folder / RUNS_NAME).glob("*.json")) else []:
        for seconds in _seconds(result):
            found.setdefault(Cell.from_dict(result["cell"]).entry.label, []).append(seconds)
    return {label: sum(seconds) / len(seconds) for label, seconds in found.items()}


def _seconds(result: dict[str, Any]) -> list[float]:
    return [run["seconds"] + result["compile_seconds"] for run in result.get("runs", [])]
