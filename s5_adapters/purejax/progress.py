"""The progress of a run: a bar on a terminal, plain lines elsewhere."""

import math
import sys
import time
from typing import NamedTuple, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

PLAIN_INTERVAL = 5.0
"""Seconds between plain lines: enough for a log file, not so many that it drowns."""


class Status(NamedTuple):
    """The progress of a run at one moment."""

    update: int
    num_updates: int
    step: int
    """Environment steps done."""
    episode_return: float
    """Mean episodic return lately; NaN before the first episode ends."""
    steps_per_second: float
    """Environment steps per second lately."""
    seconds_left: float

    def __str__(self) -> str:
        """Return one line without the update, which the bar shows."""
        episode_return = "   -  " if math.isnan(self.episode_return) else f"{self.episode_return:6.3f}"
        return (
            f"return {episode_return} | {self.step:,} steps | {self.steps_per_second:,.0f} steps/s "
            f"| {format_duration(self.seconds_left)} left"
        )


class Reporter(Protocol):
    """A display of a run's progress and messages."""

    def show(self, status: Status) -> None:
        """Show where the run is."""

    def say(self, text: str) -> None:
        """Print a line that stays."""

    def warn(self, text: str) -> None:
        """Print a line that must be seen, whether progress is shown or not: a fault, and what is kept."""

    def close(self) -> None:
        """End the display."""


class Silent:
    """A display that shows nothing but faults, which go to standard error."""

    def show(self, status: Status) -> None:
        """Show nothing."""

    def say(self, text: str) -> None:
        """Print nothing."""

    def warn(self, text: str) -> None:
        """Print a line to standard error."""
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Do nothing."""


class Plain:
    """A display that prints a line now and then: for log files, notebooks and pipes."""

    def __init__(self, label: str = ""):
        self._label = f"{label}: " if label else ""
        self._next = 0.0

    def show(self, status: Status) -> None:
        """Print where the run is, unless it was printed a moment ago."""
        now = time.monotonic()
        if now >= self._next or status.update == status.num_updates:
            self._next = now + PLAIN_INTERVAL
            self.say(f"update {status.update}/{status.num_updates} | {status}")

    def say(self, text: str) -> None:
        """Print a line."""
        print(f"{self._label}{text}", flush=True)

    def warn(self, text: str) -> None:
        """Print a line to standard error."""
        print(f"{self._label}{text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Do nothing: every line is out already."""


class Bar:
    """A bar at the bottom of a terminal."""

    def __init__(self, console: Console, label: str = ""):
        self._progress = Progress(
            TextColumn(label or "training"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._progress.add_task("", total=None, status="")

    def show(self, status: Status) -> None:
        """Move the bar; it appears at the first call."""
        self._progress.start()
        self._progress.update(
            self._task, completed=status.update, total=status.num_updates, status=str(status), refresh=True
        )

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a line to standard error, which rich puts above the bar while that is shown."""
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the bar as it is and give the terminal back."""
        self._progress.stop()


def make_reporter(enabled: bool = True, label: str = "") -> Reporter:
    """Return a bar if standard output is a terminal, else plain lines; faults alone if not ``enabled``."""
    if not enabled:
        return Silent()
    console = Console()
    return Bar(console, label) if console.is_terminal else Plain(label)


def format_duration(seconds: float) -> str:
    """Format seconds as ``"1:23:45"`` or ``"2:05"``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
