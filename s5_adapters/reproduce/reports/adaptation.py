"""Returns of training, then what the trained policies do within a task: return by trial, by family."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from s5_adapters.adaptation.curves import Adaptation, Curve, curve_of
from s5_adapters.adaptation.figure import draw
from s5_adapters.adaptation.table import TRIALS
from s5_adapters.reproduce.reports import returns
from s5_adapters.reproduce.reports.lines import Line
from s5_adapters.reproduce.spec import Experiment, Scale
from s5_adapters.sweeps.markdown import table

FIGURE = "adaptation.png"


def body(experiment: Experiment, lines: Sequence[Line], folder: Path) -> list[str]:
    """Return the report's sections, line by line; figures go into `folder`."""
    found = list(adaptations(lines))
    draw(found, folder / FIGURE)
    return [
        *returns.body(dataclasses.replace(experiment, published=()), lines, folder),
        *_by_trial(experiment, lines, found),
        f"![Return by trial and reward by step, by family]({FIGURE})",
        "",
        *returns.sources(experiment),
    ]


def adaptations(lines: Sequence[Line]) -> Iterator[Adaptation]:
    """Yield what each line does in each family, means and standard errors over its seeds."""
    families = {(part["split"], part["family"]): None for line in lines for part in _parts(line)}
    for split, family in families:
        for line in lines:
            parts = [part for part in _parts(line) if (part["split"], part["family"]) == (split, family)]
            if parts:
                walks = [part["by_step"] for part in parts]
                step = np.array(walks[0]["step"])
                yield Adaptation(
                    label=_label(line),
                    runs=(),
                    split=split,
                    family=family,
                    by_trial=_over_seeds([_array(part["by_trial"]["mean"]) for part in parts]),
                    step=step,
                    by_step=_over_seeds([_at(step, w, "mean", math.nan) for w in walks]),
                    under_way=np.mean([_at(step, w, "under_way", 0.0) for w in walks], axis=0),
                )


def _by_trial(experiment: Experiment, lines: Sequence[Line], found: Sequence[Adaptation]) -> list[str]:
    length = max(len(a.by_trial.mean) for a in found)
    trials = [trial for trial in TRIALS if trial < length]
    several = length > 1
    header = [
        "family",
        "families",
        "memory",
        "seeds",
        *(f"trial {trial}" if several else "return" for trial in trials),
    ]
    beside = () if several else experiment.published
    header += ["all trials", "seed by seed"] if several else ["seed by seed"]
    header += [published.column for published in beside]
    by_label = {_label(line): line for line in lines}
    rows = []
    for a in found:
        line = by_label[a.label]
        own = [p for p in _parts(line) if (p["split"], p["family"]) == (a.split, a.family)]
        means = [float(np.nanmean(_array(p["by_trial"]["mean"]))) for p in own]
        rows.append(
            [
                a.family,
                a.split.replace("_", " "),
                a.label,
                str(len(own)),
                *(_cell(a.by_trial, trial) for trial in trials),
                *([f"{np.mean(means):.3f}"] if several else []),
                " ".join(f"{mean:.3f}" for mean in means),
                *(published.find(a.family, a.label) for published in beside),
            ]
        )
    for published in experiment.published if several else ():
        for memory in dict.fromkeys(name for values in published.values.values() for name in values):
            cells = [published.find(str(trial), memory) for trial in trials]
            rows.append(["", "", f"{memory}, {published.column}", "", *cells, "", ""])
    return [
        "## Within a task",
        "",
        "Trained policies in new tasks, in families trained on and held out: means over tasks, then over "
        "seeds ± the standard error over seeds.",
        "",
        *table(header, rows),
        "",
    ]


def _label(line: Line) -> str:
    memory, setting = line.entry.memory, line.entry.setting
    return memory if setting in get_args(Scale) else f"{memory}, {setting}"


def _parts(line: Line) -> list[dict[str, Any]]:
    return [part for run in line.runs for part in run["families"]]


def _at(step: np.ndarray, walk: Mapping[str, Any], name: str, after: float) -> np.ndarray:
    """Read a curve over steps at the given ones; ``after`` past its last, where no task of that seed is."""
    read: np.ndarray = np.interp(step, walk["step"], _array(walk[name]), right=after)
    return read


def _over_seeds(means: Sequence[np.ndarray]) -> Curve:
    return curve_of([mean[None] for mean in means])


def _array(values: Sequence[float | None]) -> np.ndarray:
    return np.array(values, np.float64)


def _cell(curve: Curve, trial: int) -> str:
    error = curve.standard_error[trial]
    return f"{curve.mean[trial]:.3f}" + ("" if np.isnan(error) else f" ± {error:.3f}")
