"""The orthogonal initialiser that every part of the network uses, safe to batch."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.custom_batching import sequential_vmap


def orthogonal(scale: float = 1.0) -> nn.initializers.Initializer:
    """Return flax's ``orthogonal(scale)``: same values, but one matrix after another under ``vmap``.

    A program that holds several *batched* QR decompositions (networks initialised for many seeds at once,
    layers stacked) waits for ever on two CPU cores with jaxlib 0.10.2: each decomposition holds a thread of
    the pool and waits for threads that the others hold. Unbatched ones do not share their work out.
    """
    whole = nn.initializers.orthogonal(scale)

    def init(key: Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
        made: Array = sequential_vmap(lambda key: whole(key, shape, dtype))(key)
        return made

    return init
