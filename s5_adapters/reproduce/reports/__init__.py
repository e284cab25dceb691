"""Reports of experiments: ``report.md`` and plots beside the runs of a folder."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s5_adapters.core.files.weights import write_whole
from s5_adapters.reproduce.experiments import find_experiment
from s5_adapters.reproduce.reports.lines import NOT_ALONE, read_lines
from s5_adapters.reproduce.spec import Experiment
from s5_adapters.sweeps.folder import read_results
from s5_adapters.sweeps.markdown import failures, machines, made_by

REPORT_NAME = "report.md"


def write_report(name: str, folder: Path) -> Path:
    """Write the report of the experiment ``name`` from whatever runs a folder holds; returns its path.

    Raises:
        ValueError: one line, for an unknown experiment, a folder without results, or one with another
            experiment's.
    """
    experiment = find_experiment(name)
    results = read_results(folder)
    _require_own(name, experiment, results, folder)
    body = importlib.import_module(f"{__name__}.{experiment.report}").body
    parts = [f"# {experiment.title}", "", *made_by(folder), *machines(results), _load(results), ""]
    for paragraph in experiment.text:
        parts += [paragraph, ""]
    parts += body(experiment, read_lines(experiment, results), folder)
    parts += failures(folder)
    write_whole(folder / REPORT_NAME, ("\n".join(parts).rstrip() + "\n").encode())
    return folder / REPORT_NAME


def _require_own(name: str, experiment: Experiment, results: Sequence[dict[str, Any]], folder: Path) -> None:
    known = {(e.runner, e.task) for scale in ("small", "paper") for e in experiment.entries(scale)}
    for result in results:
        entry = result.get("cell", {}).get("entry", {})
        if (entry.get("runner"), entry.get("task")) not in known:
            raise ValueError(f"{folder}: a run of task {entry.get('task')!r} there, expected runs of {name}")


def _load(results: Sequence[dict[str, Any]]) -> str:
    """Say how busy the machines were, as seconds of a busy one say little, and how long it took in all."""
    loads = sorted(result["load_average"] for result in results)
    load = f"- load average at the end of a cell: {loads[0]:.1f} to {loads[-1]:.1f}"
    beside = Counter(result["side_by_side"] for result in results)
    cells = ", ".join(f"{number} ({count} of {len(results)})" for number, count in sorted(beside.items()))
    mark = f"; seconds with {NOT_ALONE} are of cells that shared the cores" if max(beside) > 1 else ""
    seconds = sum(
        result.get("compile_seconds", 0.0) + sum(run["seconds"] for run in result.get("runs", []))
        for result in results
    )
    hours = f"; {seconds / 3600:.1f} hours of training and compiling in all"
    return f"{load}; cells at a time: {cells}{mark}{hours}"
