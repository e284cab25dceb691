"""How far a sweep is: a bar on a terminal with the run under way, a line for each cell elsewhere."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from s5_adapters.purejax.logging import LOG_NAME, read_log


class Display(Protocol):
    """Shows a sweep's progress, as a context manager."""

    def say(self, line: str) -> None:
        """Print a line that stays."""

    def watch(self, behind: int, name: str) -> None:
        """Show that so many cells are behind and which one runs."""

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

    def watch(self, behind: int, name: str) -> None:
        """Show nothing: every line is of a cell that is done."""

    def __enter__(self) -> Self:
        """Return the display itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: every line is out already."""


class Bars:
    """A bar for the sweep, with the name and the state of the cell that runs below it."""

    def __init__(self, console: Console, unfinished: Path, total: int):
        self._unfinished = unfinished
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

    def watch(self, behind: int, name: str) -> None:
        """Move the bar, and say how far the cell that runs is."""
        now = f"{name} {running(self._unfinished / name)}"
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


def running(folder: Path) -> str:
    """Say how far the run in a folder is: its steps and its last return; nothing before its first update."""
    try:
        rows = list(read_log(folder)) if (folder / LOG_NAME).is_file() else []
    except OSError:  # it ended in this moment, and its folder is gone
        rows = []
    if not rows:
        return ""
    last = rows[-1]
    episode_return = last.get("episode_return")
    return f"{last['step']:,} steps" + ("" if episode_return is None else f", return {episode_return:.3f}")
