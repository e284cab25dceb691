"""A memory's state in the pair of arrays that sb3-contrib stores."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from s5_adapters.core import Memory
from s5_adapters.core.memories.state_codec import StateCodec

__all__ = ["Pair", "StateLayout"]

Pair = tuple[jax.Array, jax.Array]


@dataclass(frozen=True)
class StateLayout:
    """How a memory's state fills sb3-contrib's pair of `(n_layers, batch, width)` arrays.

    Two leaves of one shape `(n_layers, width)`, as S5 and LSTM have, become the pair as they are, layers
    first. Any other state is laid out as one row per batch element, cut in two halves, with a single
    "layer".
    """

    memory: Memory

    @functools.cached_property
    def _codec(self) -> StateCodec:
        return StateCodec(self.memory.state_shape)

    @property
    def size(self) -> int:
        """Numbers in the state of one batch element."""
        return self._codec.size

    @property
    def _is_pair(self) -> bool:
        shapes = self._codec.shapes
        return len(shapes) == 2 and shapes[0] == shapes[1] and len(shapes[0]) == 2

    @property
    def shape(self) -> tuple[int, int]:
        """`(n_layers, width)` of each of the two arrays; a memory without a state still gets a width of 1."""
        if not self._is_pair:
            return 1, max(1, -(-self.size // 2))
        n_layers, width = self._codec.shapes[0]
        return n_layers, width

    def pack(self, state: Any, batch: int) -> Pair:
        """Return the memory's state, leaves `(batch, ...)` if it has any, as the pair."""
        if self._is_pair:
            first, second = (jnp.swapaxes(leaf, 0, 1) for leaf in jax.tree.leaves(state))
            return first, second
        width = self.shape[1]
        row = self._codec.pack(state, batch)
        row = jnp.pad(row, ((0, 0), (0, 2 * width - self.size)))
        return row[None, :, :width], row[None, :, width:]

    def unpack(self, pair: Pair) -> Any:
        """Return the pair as the memory's state."""
        if self._is_pair:
            return jax.tree.unflatten(self._codec.treedef, [jnp.swapaxes(part, 0, 1) for part in pair])
        return self._codec.unpack(jnp.concatenate([pair[0][0], pair[1][0]], axis=-1))
