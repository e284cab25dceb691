"""How far a sweep is: a bar on a terminal with the run under way, a line for each cell elsewhere."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from s5_adapters.purejax.logging import LOG_NAME


class Display(Protocol):
    """Shows a sweep's progress, as a context manager."""

    def say(self, line: str) -> None:
        """Print a line that stays."""

    def watch(self, behind: int, names: Sequence[str]) -> None:
        """Show that so many cells are behind and which ones run."""

    def __enter__(self) -> Self:
        """Begin the display."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the display."""


class Lines:
    """Prints a line for each cell, or nothing."""

    def __init__(self, enabled: bool):
        self._enabled = enabled

    def say(self, line: str) -> None:
        """Print a line."""
        if self._enabled:
            print(line, flush=True)

    def watch(self, behind: int, names: Sequence[str]) -> None:
        """Show nothing: every line is of a cell that is done."""

    def __enter__(self) -> Self:
        """Return the display itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: every line is out already."""


class Bars:
    """A bar for the sweep, with the names and the states of the cells that run."""

    def __init__(self, console: Console, unfinished: Path, total: int):
        self._unfinished = unfinished
        self._logs: dict[str, LastRow] = {}
        self._progress = Progress(
            TextColumn("cells"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[now]}"),
            console=console,
        )
        self._task = self._progress.add_task("", total=total, now="")

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def watch(self, behind: int, names: Sequence[str]) -> None:
        """Move the bar, and say how far the cells that run are."""
        self._logs = {
            name: self._logs.get(name) or LastRow(self._unfinished / name / LOG_NAME) for name in names
        }
        now = "; ".join(f"{name} {log.read()}" for name, log in self._logs.items())
        self._progress.update(self._task, completed=behind, now=now)

    def __enter__(self) -> Self:
        """Show the bar."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bar as it is and give the terminal back."""
        self._progress.stop()


def make_display(unfinished: Path, total: int, *, enabled: bool) -> Display:
    """Return bars if standard output is a terminal, else lines; silent ones if not ``enabled``."""
    console = Console()
    return Bars(console, unfinished, total) if enabled and console.is_terminal else Lines(enabled)


class LastRow:
    """The last row of a run's log, which grows: what was read once is not read again.

    Args:
        path: the log, which need not be there yet, and may be replaced by another.
    """

    def __init__(self, path: Path):
        self._path = path
        self._file, self._offset, self._line = -1, 0, b""

    def read(self) -> str:
        """Say how far the run is: its steps and its last return; nothing before its first update."""
        try:
            with self._path.open("rb") as file:
                found = os.fstat(file.fileno()).st_ino
                if found != self._file:  # a run that goes on writes its log anew
                    self._file, self._offset, self._line = found, 0, b""
                file.seek(self._offset)
                whole, end, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:  # not begun, or ended in this moment, and its folder is gone
            return ""
        if end:
            self._offset += len(whole) + 1
            self._line = whole.rpartition(b"\n")[2]
        return _in_words(json.loads(self._line)) if self._line else ""


def _in_words(row: Mapping[str, Any]) -> str:
    episode_return = row.get("episode_return")
    return f"{row['step']:,} steps" + ("" if episode_return is None else f", return {episode_return:.3f}")
