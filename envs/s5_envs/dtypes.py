"""Dtypes of state that goes through loops and branches, which must be the same on every way."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def strong(x: Any) -> jax.Array:
    """Return an array without the weak type of a Python number, which only some branches would give it."""
    array = jnp.asarray(x)
    return like(array, array)


def like(new: Any, old: jax.Array) -> jax.Array:
    """Return ``new`` in the dtype of ``old``, keys as they are."""
    array = jnp.asarray(new)
    return array if jnp.issubdtype(array.dtype, jax.dtypes.extended) else array.astype(old.dtype)
