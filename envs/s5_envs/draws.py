"""Random numbers from 32-bit words of ``jax.random.bits``."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def uniform_int(word: jax.Array, n: int | jax.Array) -> jax.Array:
    """Map a word to an integer in ``[0, n)``, int32, for ``n < 2**16``.

    The high half of the 48-bit product word * n, in 32-bit arithmetic. A value's probability differs from
    1/n by less than 2**-32.
    """
    n = jnp.asarray(n).astype(jnp.uint32)
    low = ((word & 0xFFFF) * n) >> 16
    return (((word >> 16) * n + low) >> 16).astype(jnp.int32)


def uniform(word: jax.Array) -> jax.Array:
    """Map a word to a float32 in ``[0, 1)`` on the grid of 2**-24, as numpy's ``random(dtype=float32)``."""
    return (word >> 8).astype(jnp.float32) * np.float32(2.0**-24)


def normal(word: jax.Array) -> jax.Array:
    """Map a word to a standard normal float32 through the inverse distribution function."""
    # Centred on its cell, so the argument is never +-1 and the result never infinite.
    centred = ((word >> 9).astype(jnp.float32) + 0.5) * np.float32(2.0**-22) - 1.0
    return np.float32(np.sqrt(2.0)) * jax.lax.erf_inv(centred)
