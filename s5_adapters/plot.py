"""Return against environment steps: a line for each group of runs, with a band over their seeds."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from s5_adapters.core import checks
from s5_adapters.purejax.logging import read_log
from s5_adapters.purejax.run_folder import ALGORITHM, RunConfig, read_config

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POINTS = 400
_ALWAYS_NAMED = ("env_id", "memory")


class Curve(NamedTuple):
    """Episodic return over training, of one run."""

    step: np.ndarray
    """``(rows,)`` environment steps, increasing."""
    episode_return: np.ndarray
    """``(rows,)`` mean return of the episodes that ended in each update; updates without any are left out."""


class Band(NamedTuple):
    """Several curves on common steps."""

    step: np.ndarray
    mean: np.ndarray
    standard_error: np.ndarray
    """Zero for a single curve."""


def read_curve(run_dir: Path) -> Curve:
    """Read the curve in a run's log.

    Raises:
        ValueError: one line, where there is no log or no episode ended yet.
    """
    rows = [row for row in read_log(run_dir) if row.get("episode_return") is not None]
    if not rows:
        raise ValueError(f"{run_dir}: no episode ended yet, so there is nothing to plot")
    return Curve(np.array([row["step"] for row in rows]), np.array([row["episode_return"] for row in rows]))


def smooth(curve: Curve, window: int) -> Curve:
    """Replace each return by the mean of the last ``window``."""
    sums = np.concatenate([[0.0], np.cumsum(curve.episode_return)])
    stop = np.arange(1, len(sums))
    start = np.maximum(stop - window, 0)
    return Curve(curve.step, (sums[stop] - sums[start]) / (stop - start))


def band_over(curves: Sequence[Curve]) -> Band:
    """Return mean and standard error of curves, interpolated onto steps that all of them cover."""
    first = max(curve.step[0] for curve in curves)
    last = max(first, min(curve.step[-1] for curve in curves))
    step = np.linspace(first, last, _POINTS)
    values = np.stack([np.interp(step, curve.step, curve.episode_return) for curve in curves])
    spread = values.std(axis=0, ddof=1) / np.sqrt(len(curves)) if len(curves) > 1 else np.zeros(_POINTS)
    return Band(step, values.mean(axis=0), spread)


def group_runs(run_dirs: Sequence[Path]) -> dict[str, list[Path]]:
    """Group runs by a label that names what differs between them other than the seed.

    Two memories, or two algorithms, are compared in what both have: that each has options of its own goes
    without saying.

    Raises:
        ValueError: one line, where a folder holds no run.
    """
    if not run_dirs:
        raise ValueError("runs: got none, expected the folders of one or more runs")
    settings = {run_dir: _settings(read_config(run_dir)) for run_dir in run_dirs}
    names = dict.fromkeys(name for setting in settings.values() for name in setting)
    differing = [
        name for name in names if name not in _ALWAYS_NAMED and _differs(name, list(settings.values()))
    ]
    groups: dict[str, list[Path]] = {}
    for run_dir, setting in settings.items():
        groups.setdefault(_label(setting, differing), []).append(run_dir)
    return groups


def plot_runs(run_dirs: Sequence[Path], output: Path, window: int = 5) -> dict[str, list[Path]]:
    """Draw the learning curves of runs into a file, and return the groups that share a line.

    Args:
        run_dirs: folders of runs; those that differ in the seed alone share a line.
        output: ``.png``, ``.pdf`` or ``.svg``.
        window: updates to average over.

    Raises:
        ValueError: one line, for a folder without a curve or a format that cannot be written.
    """
    checks.integer("window", window)
    groups = group_runs(run_dirs)
    bands = {}
    for label, runs in groups.items():
        seeds = f" ({len(runs)} seeds)" if len(runs) > 1 else ""
        bands[label + seeds] = band_over([smooth(read_curve(run), window) for run in runs])
    draw(bands, output)
    return groups


def draw(bands: dict[str, Band], output: Path, against: str = "environment steps") -> None:
    """Draw labelled bands into a file; `against` says what their `step` is.

    Raises:
        ValueError: one line, for a format that cannot be written.
    """
    figure = new_figure(output, (7, 4.2))
    axes = figure.add_subplot()
    for label, band in bands.items():
        (line,) = axes.plot(band.step, band.mean, label=legend_label(label))
        low, high = band.mean - band.standard_error, band.mean + band.standard_error
        axes.fill_between(band.step, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set_xlabel(against)
    axes.set_ylabel("mean episodic return")
    axes.ticklabel_format(axis="x", style="sci", scilimits=(0, 3), useMathText=True)
    axes.grid(alpha=0.3)
    if bands:
        axes.legend(frameon=False)
    output.parent.mkdir(parents=True, exist_ok=True)
    save(figure, output)


def new_figure(output: Path, size: tuple[float, float]) -> "Figure":
    """Return an empty figure of a size in inches.

    Raises:
        ValueError: one line, where ``output`` is of a format that cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    formats = FigureCanvasAgg(figure).get_supported_filetypes()
    if output.suffix[1:] not in formats:
        raise ValueError(f"{output}: expected a file name ending in one of {', '.join(sorted(formats))}")
    return figure


def save(figure: "Figure", output: Path) -> None:
    """Write a figure, whole or not at all."""
    temporary = output.with_name(f".{output.stem}.tmp{output.suffix}")
    figure.savefig(temporary, dpi=150)
    temporary.replace(output)


def legend_label(label: str, columns: int = 60) -> str:
    """Break a long label into lines: a legend as wide as its figure leaves the axes no room."""
    return textwrap.fill(label, columns)


def _label(setting: Mapping[str, object], differing: Sequence[str]) -> str:
    said = (f"{name}={_brief(setting[name])}" for name in differing if name in setting)
    return ", ".join([*(str(setting[name]) for name in _ALWAYS_NAMED), *said])


def _settings(config: RunConfig) -> dict[str, object]:
    """Return what runs may differ in, but for the seed; each option of the memory is one by itself."""
    settings = {ALGORITHM: config.training.name} | config.training.to_dict()
    options = settings.pop("memory_config")
    return settings | {f"memory_config.{name}": value for name, value in options.items()}


def _differs(name: str, settings: Sequence[Mapping[str, object]]) -> bool:
    """Return whether values differ, or one run has it and another of the same algorithm and memory not."""
    having = [setting for setting in settings if name in setting]
    kinds = {(setting[ALGORITHM], setting["memory"]) for setting in having}
    of_these_kinds = sum((setting[ALGORITHM], setting["memory"]) in kinds for setting in settings)
    return len(having) < of_these_kinds or len({repr(setting[name]) for setting in having}) > 1


def _brief(value: object) -> str:
    if isinstance(value, dict):
        return "{" + " ".join(f"{key}={item}" for key, item in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)
