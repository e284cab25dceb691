"""Padding of rows, whose number RLlib changes at every update."""

from __future__ import annotations

import torch

from s5_adapters.torch_bridge import Buckets

__all__ = ["MinibatchRows", "pad_rows"]


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
        self._buckets = Buckets(max_waste=4.0)
        self._patience, self._wasteful = patience, 0

    def fit(self, rows: int) -> int:
        """The number of rows to pad to."""
        (size,) = self._buckets.fit(rows)
        self._wasteful = self._wasteful + 1 if size > 2 * rows else 0
        if self._wasteful > self._patience:
            (size,) = self._buckets.fit(rows, max_waste=2.0)
        return size


def pad_rows(tensor: torch.Tensor, *shape: int) -> torch.Tensor:
    """The tensor with zeros at the end of its first axes, to these sizes: rows, or rows and steps."""
    if tensor.shape[: len(shape)] == shape:
        return tensor
    padded = tensor.new_zeros((*shape, *tensor.shape[len(shape) :]))
    padded[tuple([slice(size) for size in tensor.shape[: len(shape)]])] = tensor
    return padded
