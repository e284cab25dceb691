"""Memories of equal size: what a comparison of architectures needs, and equal widths do not give."""

from collections.abc import Mapping
from typing import Any, Final

import jax

from s5_adapters.core.memories.memory import Memory, make_memory

STEP: Final = 8
"""Widths tried are multiples of this: attention's heads divide it, and processors like it."""


def count_params(memory: Memory, width: int) -> int:
    """Return the number of a memory's parameters for inputs of that width; nothing is computed."""
    return sum(int(leaf.size) for leaf in jax.tree.leaves(memory.param_shapes(width)))


def match_params(name: str, config: Mapping[str, Any], *, target: int, width: int) -> dict[str, Any]:
    """Return ``config`` with the ``d_model`` whose number of parameters is nearest to ``target``.

    Args:
        name: a registered memory.
        config: its keyword arguments; all but ``d_model`` stay.
        target: the number of parameters to come near.
        width: the width of the memory's inputs.

    """

    def size(multiple: int) -> int:
        return count_params(make_memory(name, **{**config, "d_model": STEP * multiple}), width)

    high = 1
    while size(high) < target:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) < target else (low, middle)
    nearest = min((n for n in (low, high) if n), key=lambda n: abs(size(n) - target))
    return {**config, "d_model": STEP * nearest}
