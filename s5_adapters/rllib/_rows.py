"""How many rows to pad minibatches to: RLlib changes their number at every update."""

from __future__ import annotations

__all__ = ["MinibatchRows"]


class MinibatchRows:
    """How many rows to pad a minibatch to: few sizes early, tight ones in the end.

    Episodes grow while a policy learns, so minibatches hold fewer rows from one update to the next. Following
    at once would compile every size on the way; never following would compute padding for the rest of the
    run. So up to three quarters of padding are borne for a while, and half of it for good.

    Args:
        patience: calls in a row with more than half of padding before a smaller size is compiled.
    """

    def __init__(self, patience: int = 1000) -> None:
        """Start with no size."""
        self._sizes: set[int] = set()
        self._patience, self._wasteful = patience, 0

    def fit(self, rows: int) -> int:
        """Return the number of rows to pad to."""
        size = self._smallest(rows, max_waste=4)
        self._wasteful = self._wasteful + 1 if size > 2 * rows else 0
        if self._wasteful > self._patience:
            size = self._smallest(rows, max_waste=2)
        return size

    def _smallest(self, rows: int, max_waste: int) -> int:
        """Return the smallest known size of at most `max_waste` times the rows, or else a new one."""
        size = min((s for s in self._sizes if rows <= s <= max_waste * rows), default=_round_up(rows))
        self._sizes.add(size)
        return size


def _round_up(rows: int) -> int:
    """Round up to 1, 2, 4, 8, 16, 24, 32, 48, 64, ...: beyond 16, powers of two pad too much."""
    power = 1 << (max(rows, 1) - 1).bit_length()
    return power * 3 // 4 if power > 16 and rows <= power * 3 // 4 else power
