"""The reports' plots: learning curves in panels, intervals, and measures against length."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from s5_adapters.plot import Curve, band_over, save, smooth
from s5_adapters.sweeps.statistics import Interval

COLUMNS = 4
SMOOTHED_OVER = 0.03
"""Share of a curve's points that it is averaged over."""


class Panel(NamedTuple):
    """One task's learning curves."""

    title: str
    curves: Mapping[str, Sequence[Mapping[str, Any]]]
    """By the label of a line, a curve of each seed: lists under "step", "seconds" and "episode_return"."""


def plot_curves(panels: Sequence[Panel], against: str, output: Path) -> None:
    """Draw a panel for each task, a line for each memory: the mean over seeds and its standard error.

    Args:
        panels: the curves, by task.
        against: the horizontal axis, "step" or "seconds".
        output: the file to write; its ending says in which format.
    """
    axes = _grid(len(panels))
    for panel, ax in zip(panels, axes, strict=True):
        for label, curves in panel.curves.items():
            known = [curve for curve in (_curve(values, against) for values in curves) if curve is not None]
            if known:
                band = band_over(known)
                (line,) = ax.plot(band.step, band.mean, label=label)
                low, high = band.mean - band.standard_error, band.mean + band.standard_error
                ax.fill_between(band.step, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        ax.set_title(panel.title, fontsize=8)
        ax.grid(alpha=0.3)
        ax.tick_params(labelsize=7)
        ax.ticklabel_format(axis="x", style="sci", scilimits=(0, 3), useMathText=True)
        if ax.get_lines():
            ax.legend(frameon=False, fontsize=7)
    figure = _figure_of(axes)
    figure.supxlabel(
        {"step": "environment steps", "seconds": "seconds of training, without compiling"}[against]
    )
    figure.supylabel("mean episodic return")
    save(figure, output)


def plot_intervals(values: Mapping[tuple[str, str], Interval], output: Path) -> None:
    """Draw interquartile means with their intervals, by task and memory: a row for each task."""
    tasks = list(dict.fromkeys(task for task, _ in values))
    memories = list(dict.fromkeys(memory for _, memory in values))
    figure = Figure(figsize=(7, 1.2 + 0.4 * len(tasks)), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    for i, memory in enumerate(memories):
        places = [
            j + (i - (len(memories) - 1) / 2) * 0.15
            for j, task in enumerate(tasks)
            if (task, memory) in values
        ]
        found = [values[task, memory] for task in tasks if (task, memory) in values]
        ax.errorbar(
            [v.value for v in found], places, xerr=_errors(found), fmt="o", ms=3, capsize=2, label=memory
        )
    ax.set_yticks(range(len(tasks)), tasks, fontsize=7)
    ax.invert_yaxis()
    ax.set_xlabel("final return")
    ax.grid(alpha=0.3)
    if values:
        ax.legend(frameon=False, fontsize=7)
    save(figure, output)


def plot_lengths(
    measures: Mapping[str, Mapping[tuple[int, str], Interval]], output: Path, *, logarithmic: bool = False
) -> None:
    """Draw a panel for each measure: by length and memory, with the intervals where there are any.

    Args:
        measures: by the panel's title, values by length and memory.
        output: the file to write; its ending says in which format.
        logarithmic: scale the vertical axes so, too.
    """
    axes = _grid(len(measures))
    for (title, values), ax in zip(measures.items(), axes, strict=True):
        for memory in dict.fromkeys(memory for _, memory in values):
            lengths = sorted(length for length, m in values if m == memory)
            found = [values[length, memory] for length in lengths]
            ax.errorbar(
                lengths, [v.value for v in found], yerr=_errors(found), marker="o", ms=3, label=memory
            )
        ax.set_xscale("log", base=2)
        if logarithmic and values:
            ax.set_yscale("log")
        ax.set_title(title, fontsize=8)
        ax.set_xlabel("length", fontsize=8)
        ax.tick_params(labelsize=7)
        ax.grid(alpha=0.3)
        if values:
            ax.legend(frameon=False, fontsize=6)
    save(_figure_of(axes), output)


def _grid(count: int) -> list[Axes]:
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    figure = Figure(figsize=(1.0 + 3.2 * columns, 0.6 + 2.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return [figure.add_subplot(rows, columns, i + 1) for i in range(count)]


def _figure_of(axes: Sequence[Axes]) -> Figure:
    figure = axes[0].figure
    assert isinstance(figure, Figure)
    return figure


def _errors(intervals: Sequence[Interval]) -> np.ndarray[Any, Any]:
    """Return the lengths below and above each value, ``(2, n)``; zeros where the interval is unknown."""
    pairs = [(0.0, 0.0) if math.isnan(v.low) else (v.value - v.low, v.high - v.value) for v in intervals]
    errors: np.ndarray[Any, Any] = np.maximum(np.array(pairs, float).reshape(-1, 2).T, 0.0)
    return errors


def _curve(values: Mapping[str, Any], against: str) -> Curve | None:
    rows = [(x, y) for x, y in zip(values[against], values["episode_return"], strict=True) if y is not None]
    if not rows:
        return None
    x, y = np.array(rows, float).T
    return smooth(Curve(x, y), max(1, round(SMOOTHED_OVER * len(rows))))
