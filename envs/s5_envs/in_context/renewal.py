"""Draws that are made where they are needed, and nowhere else, in a batch too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from s5_envs.wrappers import Wrapper, layers

PyTree = TypeVar("PyTree")

GROUP = 32
"""Environments that draw together in a batch: an end in one of them costs as many draws."""
FIRST_OWN = 2**31
"""What the keys of wrappers' own draws are folded in with, counted from here."""


def own_key(wrapper: Wrapper, key: jax.Array) -> jax.Array:
    """Return the key of a wrapper's own draws; the environment inside gets ``key`` as it is.

    It gets it unchanged so that a picture of an episode's end can repeat the step. Two wrappers around one
    another have different keys, and both others than those that splitting ``key`` gives: splits count from 0.
    """
    wrappers_inside = sum(isinstance(layer, Wrapper) for layer in layers(wrapper.env))
    return jax.random.fold_in(key, FIRST_OWN + wrappers_inside)


def renew(draw: Callable[[jax.Array], PyTree], needed: jax.Array, key: jax.Array, current: PyTree) -> PyTree:
    """Return ``draw(key)`` where ``needed``, else ``current``.

    Under ``jax.vmap`` a condition becomes a selection, so that every environment would draw at every step.
    Here those of a batch that need it draw, ``GROUP`` at a time; where nobody does, nothing is drawn.

    Args:
        draw: makes arrays of the shapes and dtypes of ``current`` from a key; closes over no traced value.
        needed: () bool.
        key: where ``draw``'s randomness comes from.
        current: what there is.
    """

    @jax.custom_batching.custom_vmap
    def renewed(needed: jax.Array, key: jax.Array, current: PyTree) -> PyTree:
        drawn: PyTree = jax.lax.cond(needed, draw, lambda key: current, key)
        return drawn

    @renewed.def_vmap
    def renewed_batch(
        size: int, is_batched: Any, needed: jax.Array, key: jax.Array, current: PyTree
    ) -> tuple[PyTree, PyTree]:
        needed, key, current = (
            jax.tree.map(lambda x, is_batched: x if is_batched else _repeat(x, size), value, batched)
            for value, batched in zip((needed, key, current), is_batched, strict=True)
        )

        def draw_group(carry: tuple[jax.Array, PyTree]) -> tuple[jax.Array, PyTree]:
            pending, values = carry
            # A fifth of the time of jnp.nonzero on a CPU.
            found, rows = jax.lax.top_k(pending.astype(jnp.float32), min(GROUP, size))
            rows = jnp.where(found > 0, rows, size)
            # Rows past the end stand for nobody: they draw with the last key, and are dropped.
            fresh = jax.vmap(draw)(key[jnp.minimum(rows, size - 1)])
            values = jax.tree.map(lambda old, new: old.at[rows].set(new, mode="drop"), values, fresh)
            return pending.at[rows].set(False, mode="drop"), values

        values = jax.lax.while_loop(lambda carry: carry[0].any(), draw_group, (needed, current))[1]
        return values, jax.tree.map(lambda _: True, values)

    result: PyTree = renewed(needed, key, current)
    return result


def _repeat(x: jax.Array, size: int) -> jax.Array:
    return jnp.broadcast_to(x, (size, *jnp.shape(x)))
