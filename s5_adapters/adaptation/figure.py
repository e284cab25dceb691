"""The curves as a figure: a row for each family, return by trial beside reward by step."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from s5_adapters.adaptation.curves import Adaptation, Curve
from s5_adapters.plot import legend_label, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(adaptations: Sequence[Adaptation], output: Path) -> None:
    """Draw all curves into a file.

    Args:
        adaptations: those of ``ask``.
        output: ``.png``, ``.pdf`` or ``.svg``.

    Raises:
        ValueError: one line, for a format that cannot be written.
    """
    families = list(dict.fromkeys((a.split, a.family) for a in adaptations))
    # One colour for a label in all panels, of which some lack some.
    colors = {label: f"C{i}" for i, label in enumerate(dict.fromkeys(a.label for a in adaptations))}
    figure = new_figure(output, (10, 0.6 + 2.6 * len(families)))
    grid = figure.subplots(len(families), 2, squeeze=False)
    for (split, family), (left, right) in zip(families, grid, strict=True):
        for a in adaptations:
            if (a.split, a.family) == (split, family):
                _band(left, np.arange(len(a.by_trial.mean)), a.by_trial, a.label, colors[a.label])
                _band(right, a.step, a.by_step, a.label, colors[a.label])
        left.set_title(family if split == "training" else f"{family} (held out)", fontsize="medium")
        left.set_ylabel("return of the trial")
        right.set_ylabel("mean reward of a step")
        for axes in (left, right):
            axes.grid(alpha=0.3)
    grid[-1, 0].set_xlabel("trial")
    grid[-1, 1].set_xlabel("step within the task")
    lines = {line.get_label(): line for axes in grid.flat for line in axes.get_lines()}
    labels = [legend_label(label, 50) for label in colors]
    grid[0, 0].legend([lines[label] for label in colors], labels, frameon=False, fontsize="small")
    output.parent.mkdir(parents=True, exist_ok=True)
    save(figure, output)


def _band(axes: "Axes", x: np.ndarray, curve: Curve, label: str, color: str) -> None:
    axes.plot(x, curve.mean, label=label, color=color, marker="." if len(x) <= 64 else None)
    error = np.nan_to_num(curve.standard_error)
    axes.fill_between(x, curve.mean - error, curve.mean + error, color=color, alpha=0.2, linewidth=0)
