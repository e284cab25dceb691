"""Random keys as the plain numbers that files and other processes take."""

from typing import Any

import jax
import jax.numpy as jnp


def to_words(leaf: Any) -> Any:
    """Return a typed key's words, uint32; any other array as it is."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def from_words(like: Any, array: Any) -> Any:
    """Undo ``to_words``; ``like`` is what there was, or what ``jax.eval_shape`` gives of it."""
    if not _is_key(like):
        return array
    implementation: list[Any] = []  # key_impl takes no ShapeDtypeStruct, but a tracer of one
    jax.eval_shape(lambda key: implementation.append(jax.random.key_impl(key)), like)
    return jax.random.wrap_key_data(array, impl=implementation[0])


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))
