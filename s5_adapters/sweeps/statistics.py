"""From runs to numbers: the interquartile mean over seeds and its bootstrap interval, as rliable has them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 2000


class Interval(NamedTuple):
    """An interquartile mean, and the bounds of its bootstrap confidence interval."""

    value: float
    low: float
    high: float
    """Both NaN where nothing can be resampled."""

    def __str__(self) -> str:
        """Return three digits after the point, the bounds in brackets."""
        bounds = "" if math.isnan(self.low) else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.value:.3f}{bounds}"


def interquartile_mean(values: Sequence[float]) -> float:
    """Return the mean of the middle half (Agarwal et al., NeurIPS 2021, arXiv 2108.13264)."""
    return float(stats.trim_mean(np.asarray(values, float), 0.25))


def estimate(values: Sequence[float]) -> Interval:
    """Estimate the interquartile mean, with a percentile bootstrap over the seeds."""
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


def stratified_estimate(scores: Sequence[Sequence[float]]) -> Interval:
    """Estimate the interquartile mean over all runs of several tasks; seeds are drawn within each task.

    Args:
        scores: for each task, the score of each seed; tasks may have different numbers of seeds.
    """
    value = interquartile_mean([score for task in scores for score in task])
    if max(len(task) for task in scores) < 2:
        return Interval(value, float("nan"), float("nan"))
    rng = np.random.default_rng(0)
    drawn = [np.asarray(task, float)[rng.integers(len(task), size=(RESAMPLES, len(task)))] for task in scores]
    means = stats.trim_mean(np.concatenate(drawn, axis=1), 0.25, axis=1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value, float(low), float(high))


def median(values: Sequence[float | None]) -> float | None:
    """Return the median of what is not None; None where nothing is."""
    there = [value for value in values if value is not None]
    return statistics.median(there) if there else None
