"""The table of ``s5-adapters status``."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from s5_adapters.purejax.progress import format_duration
from s5_adapters.purejax.standing import Standing


def print_standings(standings: Sequence[Standing]) -> None:
    """Print a line for each run, then how many there are of each state."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("run", "state"):
        table.add_column(column, overflow="fold")
    for column in ("updates", "saved", "return", "steps/s", "left", "last row"):
        table.add_column(column, justify="right", no_wrap=True)
    for run in standings:
        is_over = run.state == "done"
        table.add_row(
            str(run.run_dir),
            run.state,
            f"{run.update:,}/{run.num_updates:,}",
            f"{run.saved:,}",
            _number(run.episode_return, ".3f"),
            _number(run.steps_per_second, ",.0f"),
            "-" if is_over else _duration(run.seconds_left),
            "-" if is_over else _ago(run.seconds_silent),
        )
    console = Console()
    # Piped into a file or grep, a line stays a line.
    (console if console.is_terminal else Console(width=200)).print(table)
    states = [run.state for run in standings]
    print(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))


def _number(value: float, style: str) -> str:
    return "-" if math.isnan(value) else format(value, style)


def _duration(seconds: float) -> str:
    return "-" if math.isnan(seconds) else format_duration(seconds)


def _ago(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{format_duration(seconds)} ago"
