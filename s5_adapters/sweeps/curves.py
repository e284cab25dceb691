"""Numbers read off a learning curve: of each update, the mean return of the episodes that ended in it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

FINAL_SHARE = 0.1
"""The last part of the training's steps that a final return is averaged over."""

Returns = Sequence[float | None]
"""One number an update; None where no episode ended in it."""


def final_return(steps: Sequence[float], returns: Returns) -> float | None:
    """Average over the updates in the last tenth of the steps; None where no episode ended there."""
    return _mean(
        value for step, value in zip(steps, returns, strict=True) if step > (1 - FINAL_SHARE) * steps[-1]
    )


def best_return(returns: Returns) -> float | None:
    """Return the largest mean return of an update: MMER, POPGym's score (Morad et al., arXiv 2303.01859)."""
    return max((value for value in returns if value is not None), default=None)


def return_within(
    seconds: Sequence[float], steps: Sequence[float], returns: Returns, budget: float
) -> float | None:
    """Return the final return of what a curve had done after ``budget`` seconds; None if nothing."""
    count = int(np.searchsorted(np.asarray(seconds, float), budget, side="right"))
    return final_return(steps[:count], returns[:count]) if count else None


def largest_fall(returns: Returns, window: int, bar: float = -math.inf) -> float | None:
    """Return the most that a running mean over ``window`` updates lost against its own best, once that was
    above ``bar``; None where it never was.
    """
    ended = [value for value in returns if value is not None]
    if len(ended) < window:
        return None
    means = np.convolve(ended, np.ones(window) / window, mode="valid")
    best = np.maximum.accumulate(means)
    reached = best >= bar
    return float((best - means)[reached].max()) if reached.any() else None


def _mean(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None
