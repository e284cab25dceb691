"""Boards of yes and no as one 32-bit word a row: bit x of word y is the square in row y, column x.

A board of 12 x 12 is 12 words, so that placing a ship, clearing a board or counting neighbours is a few
elementwise operations.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

MAX_SIZE = 30  # rows and columns; two bits to spare for shifts


def pack(board: jax.Array) -> jax.Array:
    """Pack ``(rows, columns)`` of 0 and 1 into ``(rows,)`` uint32."""
    bits = jnp.asarray(board).astype(jnp.uint32) << jnp.arange(board.shape[1], dtype=jnp.uint32)
    return bits.sum(1, dtype=jnp.uint32)


def unpack(rows: jax.Array, columns: int) -> jax.Array:
    """Unpack ``(rows,)`` uint32 into ``(rows, columns)`` bool."""
    return (rows[:, None] >> jnp.arange(columns, dtype=jnp.uint32)) & 1 == 1


def square(num_rows: int, y: jax.Array, x: jax.Array) -> jax.Array:
    """Return the board with the one square (y, x) set: ``(num_rows,)`` uint32; none if y lies outside."""
    return jnp.where(jnp.arange(num_rows) == y, jnp.uint32(1) << x.astype(jnp.uint32), jnp.uint32(0))


def count(rows: jax.Array) -> jax.Array:
    """Return how many squares are set, int32."""
    return jax.lax.population_count(rows).sum(dtype=jnp.int32)


def neighbours(rows: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
    """Return how many squares are set in the 3 x 3 around (y, x), itself included, int32."""
    near = jnp.abs(jnp.arange(rows.shape[0]) - y) <= 1
    three = ((rows << 1) >> x.astype(jnp.uint32)) & jnp.uint32(7)
    return count(jnp.where(near, three, jnp.uint32(0)))
