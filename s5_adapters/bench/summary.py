"""Numbers made of runs: groups over seeds, the interquartile mean and its confidence interval."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from s5_adapters.bench.spec import Cell

CONFIDENCE = 0.95
RESAMPLES = 2000

Group = tuple[str, str, str, str]
"""Problem, device, framework, memory: what is alike but for the seed. A problem goes by its environment's id,
and where a folder holds several specs of one environment by the spec's digest too."""


class Interval(NamedTuple):
    """An interquartile mean over seeds, and the bounds of its bootstrap confidence interval."""

    value: float
    low: float
    high: float
    """Both NaN for a single seed."""


def interquartile_mean(values: Sequence[float]) -> float:
    """Return the mean of the middle half (Agarwal et al., NeurIPS 2021, arXiv 2108.13264)."""
    return float(stats.trim_mean(np.asarray(values, float), 0.25))


def estimate(values: Sequence[float]) -> Interval:
    """Estimate the interquartile mean and its percentile bootstrap over the seeds, as rliable does."""
    value = interquartile_mean(values)
    if len(values) < 2:
        return Interval(value, float("nan"), float("nan"))
    if np.ptp(values) == 0:
        return Interval(value, value, value)
    found = stats.bootstrap(
        (np.asarray(values, float),),
        lambda sample, axis: stats.trim_mean(sample, 0.25, axis=axis),
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(value, float(found.low), float(found.high))


def group(results: Sequence[dict[str, Any]]) -> dict[Group, list[dict[str, Any]]]:
    """Group results that differ in the seed alone, in the order of their seeds."""
    every = [(Cell.from_dict(result["cell"]), result) for result in results]
    specs: dict[str, set[str]] = {}
    for cell, _ in every:
        specs.setdefault(cell.spec.ppo.env_id, set()).add(cell.spec.digest)
    groups: dict[Group, list[dict[str, Any]]] = {}
    for cell, result in sorted(every, key=lambda pair: pair[0].seed):
        problem = cell.spec.ppo.env_id
        if len(specs[problem]) > 1:
            problem += f"-{cell.spec.digest}"
        groups.setdefault((problem, cell.device, cell.framework, cell.memory), []).append(result)
    return groups


def median(values: Sequence[float | None]) -> float | None:
    """Return the median of the values that are not None."""
    there = [value for value in values if value is not None]
    return statistics.median(there) if there else None
