"""The curves as tables and as JSON."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from s5_adapters.adaptation.curves import Adaptation, Curve, Environment, Question

TRIALS = (0, 1, 3, 8, 16, 20, 31)
"""The trials that are shown: those whose returns can be read off the figure of Lu et al. (2023)."""
_COLUMNS = 8


def print_tables(adaptations: Sequence[Adaptation]) -> None:
    """Print the return by trial, and the mean reward by step."""
    num_trials = max(len(a.by_trial.mean) for a in adaptations)
    trials = [t for t in range(num_trials) if num_trials <= _COLUMNS or t in (*TRIALS, num_trials - 1)]
    by_trial = _table("Return by trial, ± standard error", [*map(str, trials), "mean"])
    shares = [f"{(i + 1) / _COLUMNS:.3g}" for i in range(_COLUMNS)]
    by_step = _table("Mean reward of a step, up to each eighth of the longest task's steps", shares)
    for a in adaptations:
        names = (a.family, a.split.replace("_", " "), a.label)
        cells = [_cell(a.by_trial, t) for t in trials if t < len(a.by_trial.mean)]
        missing = [""] * (len(trials) - len(cells))
        by_trial.add_row(*names, *cells, *missing, _number(float(a.by_trial.mean.mean())))
        by_step.add_row(*names, *_eighths(a))
    console = Console()
    # Piped into a file or grep, a line stays a line.
    console = console if console.is_terminal else Console(width=240)
    console.print(by_trial)
    console.print(by_step)


def write_json(
    output: Path, environment: Environment, question: Question, adaptations: Sequence[Adaptation]
) -> None:
    """Write everything that was found, null for what is no number."""
    found = {
        **environment._asdict(),
        "question": question._asdict(),
        "curves": [plain(a) for a in adaptations],
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def plain(a: Adaptation) -> dict[str, Any]:
    """Return the curves as JSON can hold them, null for what is no number."""
    by_trial, by_step = (
        {name: _listed(x) for name, x in c._asdict().items()} for c in (a.by_trial, a.by_step)
    )
    return {
        "label": a.label,
        "runs": a.runs,
        "split": a.split,
        "family": a.family,
        "by_trial": by_trial,
        "by_step": {"step": a.step.tolist(), **by_step, "under_way": _listed(a.under_way)},
    }


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("family", "families", "run"):
        table.add_column(column, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _cell(curve: Curve, i: int) -> str:
    error = float(curve.standard_error[i])
    return _number(float(curve.mean[i])) + ("" if math.isnan(error) else f" ± {error:.2g}")


def _eighths(a: Adaptation) -> list[str]:
    eighth = np.ceil(a.step / a.step[-1] * _COLUMNS).astype(int)
    parts = [a.by_step.mean[eighth == i + 1] for i in range(_COLUMNS)]
    return [_number(float(part.mean())) if part.size else "" for part in parts]


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"


def _listed(values: np.ndarray) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]
