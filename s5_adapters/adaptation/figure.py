"""The curves as a figure: a row for each family, return by trial and reward by step."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from s5_adapters.adaptation.curves import Adaptation, Curve
from s5_adapters.plot import legend_label, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(adaptations: Sequence[Adaptation], output: Path) -> None:
    """Draw all curves into a file: by trial unless tasks have one, by step unless all steps pay alike.

    Args:
        adaptations: those of ``ask``.
        output: ``.png``, ``.pdf`` or ``.svg``.

    Raises:
        ValueError: one line, for a format that cannot be written.
    """
    families = list(dict.fromkeys((a.split, a.family) for a in adaptations))
    # One colour for a label in all panels, of which some lack some.
    colors = {label: f"C{i}" for i, label in enumerate(dict.fromkeys(a.label for a in adaptations))}
    panels = [panel for panel in (_BY_TRIAL, _BY_STEP) if any(map(panel.tells, adaptations))] or [_BY_TRIAL]
    width = 8 if len(panels) == 1 else 10
    rows_of_legend = -(-len(colors) // _LEGEND_COLUMNS)
    figure = new_figure(output, (width, 0.6 + 2.6 * len(families) + 0.2 * rows_of_legend))
    grid = figure.subplots(len(families), len(panels), squeeze=False)
    for (split, family), row in zip(families, grid, strict=True):
        for panel, axes in zip(panels, row, strict=True):
            for a in adaptations:
                if (a.split, a.family) == (split, family):
                    _band(axes, *panel.points(a), a.label, colors[a.label])
            axes.set_ylabel(panel.ylabel)
            axes.grid(alpha=0.3)
        row[0].set_title(family if split == "training" else f"{family} (held out)", fontsize="medium")
    for panel, axes in zip(panels, grid[-1], strict=True):
        axes.set_xlabel(panel.xlabel)
    lines = {line.get_label(): line for axes in grid.flat for line in axes.get_lines()}
    figure.legend(
        [lines[label] for label in colors],
        [legend_label(label, 50) for label in colors],
        loc="outside lower center",
        ncols=_LEGEND_COLUMNS,
        frameon=False,
        fontsize="small",
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    save(figure, output)


class _Panel(NamedTuple):
    """One of the two ways to look at a task."""

    xlabel: str
    ylabel: str
    points: Callable[[Adaptation], tuple[np.ndarray, Curve]]
    tells: Callable[[Adaptation], bool]
    """Whether there is more than one value to see."""


_BY_TRIAL = _Panel(
    xlabel="trial",
    ylabel="return of the trial",
    points=lambda a: (np.arange(len(a.by_trial.mean)), a.by_trial),
    tells=lambda a: len(a.by_trial.mean) > 1,
)
_BY_STEP = _Panel(
    xlabel="step within the task",
    ylabel="mean reward of a step",
    points=lambda a: (a.step, a.by_step),
    tells=lambda a: not np.allclose(a.by_step.mean, a.by_step.mean[0], rtol=1e-5, atol=0.0, equal_nan=True),
)
_LEGEND_COLUMNS = 3


def _band(axes: "Axes", x: np.ndarray, curve: Curve, label: str, color: str) -> None:
    axes.plot(x, curve.mean, label=label, color=color, marker="." if len(x) <= 64 else None)
    error = np.nan_to_num(curve.standard_error)
    axes.fill_between(x, curve.mean - error, curve.mean + error, color=color, alpha=0.2, linewidth=0)
