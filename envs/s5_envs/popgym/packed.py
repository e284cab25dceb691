"""A stack of suits, 16 to a 32-bit word, that is pushed and popped by shifting.

Remembering the last k cards of an episode as an array would take one scattered write a step in every
environment of a batch; shifting a few words is elementwise.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

PER_WORD = 16  # suits need two bits each


def empty(capacity: int) -> jax.Array:
    """Return a stack for at least ``capacity`` suits: ``(ceil(capacity / 16),)`` uint32."""
    return jnp.zeros(((capacity + PER_WORD - 1) // PER_WORD,), jnp.uint32)


def push(stack: jax.Array, suit: jax.Array) -> jax.Array:
    """Put ``suit`` (0..3) on top; what no longer fits falls off the bottom."""
    carried = jnp.concatenate([suit.astype(jnp.uint32)[None], stack[:-1] >> 30])
    return (stack << 2) | carried


def pop(stack: jax.Array) -> jax.Array:
    """Take the top off; zeros come in at the bottom."""
    carried = jnp.concatenate([stack[1:] << 30, jnp.zeros((1,), jnp.uint32)])
    return (stack >> 2) | carried


def peek(stack: jax.Array, depth: int = 0) -> jax.Array:
    """Return the suit that lies ``depth`` below the top, int32."""
    word, place = divmod(depth, PER_WORD)
    return ((stack[word] >> (2 * place)) & 3).astype(jnp.int32)
