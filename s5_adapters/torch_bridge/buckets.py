"""Sizes to which changing shapes are padded, and the padding."""

from __future__ import annotations

import math

import torch
from torch import nn

__all__ = ["Buckets", "pad_rows"]


class Buckets:
    """The shapes compiled so far, to which changing ones are padded: a long run compiles a bounded number.

    A shape is padded to the smallest known one that holds it. Where none does without more than `max_waste`
    times the work, a new one is made known, with every side a power of two: so their number grows with the
    logarithm of the sizes seen, never with the number of minibatches.

    Args:
        max_waste: how many times its own size a shape may be padded to: three, unless said otherwise
            (`S5Policy` and `S5RLModule` say four).
        exact_first: take the first shape as it is, since it is likely to stay the only one.
    """

    def __init__(self, max_waste: float = 3.0, *, exact_first: bool = False) -> None:
        """Start with no shape."""
        self.max_waste, self.exact_first = max_waste, exact_first
        self.shapes: set[tuple[int, ...]] = set()

    def add(self, *shape: int) -> None:
        """Make a shape known, to be used as it is."""
        self.shapes.add(shape)

    def fit(self, *shape: int, max_waste: float | None = None) -> tuple[int, ...]:
        """Return the shape to pad to, and make it known if it was not.

        Args:
            *shape: the sizes of the axes that are padded; every call gives as many.
            max_waste: in the place of the constructor's, for this shape.
        """
        if shape in self.shapes:
            return shape
        limit = math.prod(shape) * (self.max_waste if max_waste is None else max_waste)
        holding = [
            known
            for known in self.shapes
            if math.prod(known) <= limit and all(a >= b for a, b in zip(known, shape, strict=True))
        ]
        if holding:
            return min(holding, key=lambda known: (math.prod(known), known))
        if self.shapes or not self.exact_first:
            shape = tuple([1 << (max(side, 1) - 1).bit_length() for side in shape])
        self.add(*shape)
        return shape


def pad_rows(tensor: torch.Tensor, *shape: int) -> torch.Tensor:
    """Pad the first axes with zeros at their ends, to these sizes; the others stay."""
    if tensor.shape[: len(shape)] == shape:
        return tensor
    missing = [0, 0] * (tensor.dim() - len(shape))
    for axis in reversed(range(len(shape))):
        missing += [0, shape[axis] - tensor.shape[axis]]
    return nn.functional.pad(tensor, missing)
