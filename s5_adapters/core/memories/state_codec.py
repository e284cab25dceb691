"""Recurrent states as rows of numbers, for frameworks that store plain arrays."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from s5_adapters.core.memories.memory import State, is_shape
from s5_adapters.core.shapes import Float


class StateCodec:
    """Lay a state out as one array ``(rows, size)`` float32, and read it back.

    Zeros are the state before an episode, here as there.

    Args:
        state_shape: of a memory or of an ``ActorCritic``: a pytree of shapes without the batch axis.

    Attributes:
        treedef: the state's structure.
        shapes: the shape of each of its leaves, without the batch axis.
        size: numbers in one row; 0 for a memory that keeps nothing.

    """

    def __init__(self, state_shape: Any) -> None:
        leaves, self.treedef = jax.tree.flatten(state_shape, is_leaf=is_shape)
        self.shapes: tuple[tuple[int, ...], ...] = tuple(leaves)
        self.size = sum(map(math.prod, self.shapes))

    def pack(self, state: State, rows: int) -> Float[Array, "B S"]:
        """Lay out a state whose leaves, if it has any, are ``(rows, ...)``."""
        leaves = [leaf.reshape(rows, -1).astype(jnp.float32) for leaf in jax.tree.leaves(state)]
        return jnp.concatenate([jnp.zeros((rows, 0), jnp.float32), *leaves], axis=1)

    def unpack(self, packed: Float[Array, "B S"]) -> State:
        """Read back what ``pack`` made; columns beyond ``size`` are padding."""
        leaves, start = [], 0
        for shape in self.shapes:
            stop = start + math.prod(shape)
            leaves.append(packed[:, start:stop].reshape(-1, *shape))
            start = stop
        return jax.tree.unflatten(self.treedef, leaves)
