"""Robustness: the share of seeds that end above the bar, and how far runs fall after having reached it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from s5_adapters.reproduce.figures import Panel, plot_curves
from s5_adapters.reproduce.reports.lines import Line, by_task
from s5_adapters.reproduce.spec import Experiment
from s5_adapters.sweeps.curves import largest_fall
from s5_adapters.sweeps.markdown import table
from s5_adapters.sweeps.statistics import estimate

FALL_WINDOW = 0.05
"""The share of a run's updates that a running mean is taken over before falls are measured."""


def body(experiment: Experiment, lines: Sequence[Line], folder: Path) -> list[str]:
    """Return the report's sections, line by line; figures go into `folder`."""
    header = [
        "task",
        "memory",
        "setting",
        "seeds",
        "steps",
        "bar",
        "above",
        "worst",
        "final return",
        "reached",
        "median fall",
        "largest",
        "most seconds",
    ]
    rows = [_row(line, experiment.bars[line.entry.task]) for line in lines]
    panels = [
        Panel(task, {f"{line.entry.memory}, {line.entry.setting}": [run["curve"] for run in line.runs]})
        for (task, _), group in by_task(lines).items()
        for line in group
    ]
    plot_curves(panels, "step", folder / "step-robust.png")
    return ["## Seeds", "", *table(header, rows), "", "![Learning curves](step-robust.png)", ""]


def falls(line: Line, bar: float) -> list[float]:
    """Return the largest fall of each run that reached the bar."""
    found = []
    for run in line.runs:
        returns = run["curve"]["episode_return"]
        fall = largest_fall(returns, max(1, round(FALL_WINDOW * len(returns))), bar)
        if fall is not None:
            found.append(fall)
    return found


def _row(line: Line, bar: float) -> list[str]:
    final, lost = line.values("final_return"), falls(line, bar)
    return [
        line.entry.task,
        line.entry.memory,
        line.entry.setting,
        str(len(line.runs)),
        f"{line.fact('steps'):,}",
        f"{bar:g}",
        f"{sum(value >= bar for value in final)} of {len(line.runs)}",
        f"{min(final):.3f}" if final else "-",
        str(estimate(final)) if final else "-",
        f"{len(lost)} of {len(line.runs)}",
        f"{statistics.median(lost):.3f}" if lost else "-",
        f"{max(lost):.3f}" if lost else "-",
        line.marked(line.seconds_in_all),
    ]
