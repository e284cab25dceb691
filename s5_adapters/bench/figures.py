"""The report's plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from s5_adapters.plot import Curve, band_over, draw, save, smooth
from s5_adapters.sweeps.statistics import median

WINDOW = 5
"""Updates that learning curves are averaged over."""
AXES = {"step": "environment steps", "seconds": "seconds of training, without compiling"}


def plot_throughput(groups: Mapping[str, Sequence[dict[str, Any]]], output: Path) -> None:
    """Draw bars of environment steps per second: over everything, collecting, updating."""
    figure = Figure(figsize=(8, 0.6 + 0.45 * len(groups)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    parts = {"total": "all", "collect": "collecting", "update": "updating"}
    positions, height = np.arange(len(groups)), 0.27
    for i, (part, label) in enumerate(parts.items()):
        values = [median([run["steps_per_second"].get(part) for run in runs]) for runs in groups.values()]
        axes.barh(positions + (i - 1) * height, [v or 0.0 for v in values], height, label=label)
    axes.set_yticks(positions, list(groups))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("environment steps per second")
    axes.grid(alpha=0.3, axis="x")
    axes.legend(frameon=False)
    save(figure, output)


def plot_curves(groups: Mapping[str, Sequence[dict[str, Any]]], against: str, output: Path) -> None:
    """Draw learning curves, a line for each group with a band over its seeds; `against` is one of `AXES`."""
    bands = {}
    for label, runs in groups.items():
        curves = [curve for run in runs if (curve := _curve(run, against)) is not None]
        if curves:
            bands[label] = band_over([smooth(curve, WINDOW) for curve in curves])
    draw(bands, output, AXES[against])


def _curve(run: Mapping[str, Any], against: str) -> Curve | None:
    rows = [row for row in run["curve"] if row["episode_return"] is not None]
    if not rows:
        return None
    return Curve(np.array([row[against] for row in rows]), np.array([row["episode_return"] for row in rows]))
