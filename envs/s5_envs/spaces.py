"""gymnax's spaces, the one it lacks (``MultiDiscrete``), and how their values look to a network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments.spaces import Box, Dict, Discrete, Space, Tuple, gymnax_space_to_gym_space
from jax.typing import ArrayLike

from s5_envs.interface import PyTree

__all__ = [
    "AnySpace",
    "ArraySpace",
    "Box",
    "Dict",
    "Discrete",
    "MultiDiscrete",
    "Space",
    "Tuple",
    "concatenated",
    "encode",
    "encoded_space",
    "null_value",
    "one_hot",
    "part_of",
    "standard",
    "to_gymnasium",
]


class MultiDiscrete(Space):
    """Several discrete choices made at once.

    Args:
        nvec: the number of categories of each choice.
    """

    def __init__(self, nvec: tuple[int, ...]):
        """Check and store the categories."""
        if not nvec or min(nvec) < 1:
            raise ValueError(f"MultiDiscrete: nvec must hold positive integers, got {tuple(nvec)}")
        self.nvec = tuple(int(n) for n in nvec)
        self.shape = (len(self.nvec),)
        self.dtype = jnp.dtype(jnp.int32)

    @property
    def n(self) -> int:
        """The number of distinct values."""
        return math.prod(self.nvec)

    def __repr__(self) -> str:
        """Return the categories of each choice."""
        return f"MultiDiscrete({list(self.nvec)})"

    def sample(self, key: jax.Array) -> jax.Array:
        """Sample every choice uniformly: ``(len(nvec),)`` int32."""
        return jax.random.randint(key, self.shape, 0, jnp.array(self.nvec), self.dtype)

    def contains(self, x: jax.Array) -> jax.Array:
        """Tell whether every choice of ``x`` is one of its categories."""
        x = jnp.asarray(x)
        return jnp.all((x >= 0) & (x < jnp.array(self.nvec)))


ArraySpace: TypeAlias = Discrete | MultiDiscrete | Box
"""A space whose values are single arrays."""

AnySpace: TypeAlias = ArraySpace | Dict | Tuple
"""A space as ``standard`` returns them."""


def to_gymnasium(space: Space) -> gymnasium.Space[Any]:
    """Convert to gymnasium's space of the same name."""
    if isinstance(space, MultiDiscrete):
        return gymnasium.spaces.MultiDiscrete(list(space.nvec))
    if isinstance(space, Dict):
        return gymnasium.spaces.Dict({name: to_gymnasium(part) for name, part in space.spaces.items()})
    if isinstance(space, Tuple):
        return gymnasium.spaces.Tuple([to_gymnasium(part) for part in space.spaces])
    return gymnax_space_to_gym_space(space)


def standard(space: Any) -> AnySpace:
    """Return gymnasium's and older gymnax's spaces as those of this module; its own come back as they are.

    gymnasium's MultiBinary becomes a Box of zeros and ones, which flattens alike.

    Raises:
        TypeError: anything else, and discrete spaces that do not begin at 0.
    """
    if isinstance(space, (Discrete, MultiDiscrete, Box)):
        return space
    parts = getattr(space, "spaces", None)
    if isinstance(parts, Mapping):
        return Dict({name: standard(part) for name, part in parts.items()})
    if isinstance(parts, (list, tuple)):
        return Tuple([standard(part) for part in parts])
    if hasattr(space, "low") and hasattr(space, "high"):
        return Box(space.low, space.high, tuple(space.shape), space.dtype)
    from_zero = not np.any(getattr(space, "start", 0))
    if from_zero and np.ndim(getattr(space, "nvec", 0)) == 1:
        return MultiDiscrete(tuple(space.nvec))
    if from_zero and hasattr(space, "n") and not hasattr(space, "nvec"):
        shape = tuple(getattr(space, "shape", ()) or ())
        return Box(0, 1, shape, jnp.int8) if shape else Discrete(int(space.n))
    raise TypeError(f"got {space!r}, expected Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple")


def part_of(value: PyTree, name: str) -> PyTree:
    """Return one part of a Dict space's value, which is a mapping or a dataclass."""
    return value[name] if isinstance(value, Mapping) else getattr(value, name)


def null_value(space: Space) -> jax.Array:
    """Return the value that stands for "no action yet": 0, or the lowest value where 0 is outside (Box)."""
    if isinstance(space, Box):
        # numpy, because bounds are known while tracing and must not become tracers.
        low, high = np.asarray(space.low), np.asarray(space.high)
        null = np.zeros(space.shape) if (low <= 0).all() and (high >= 0).all() else low
        return jnp.broadcast_to(jnp.asarray(null, space.dtype), space.shape)
    if isinstance(space, (Discrete, MultiDiscrete)):
        return jnp.zeros(space.shape, jnp.int32)
    raise TypeError(f"null_value: got {space!r}, expected Discrete, MultiDiscrete or Box")


def one_hot(value: ArrayLike, n: int) -> jax.Array:
    """Return ``(..., n)`` float32 with a 1 at ``value`` (integers or booleans ``(...)``); zeros outside."""
    return (jnp.asarray(value)[..., None] == jnp.arange(n)).astype(jnp.float32)


def encode(space: Space, value: PyTree) -> jax.Array:
    """Encode a value as flat float32: one-hot for discrete parts, concatenated; a Box is ravelled.

    This is gymnasium's ``flatten``, which is what POPGym's ``Flatten`` wrapper applies: the parts of a Dict
    in the order of their sorted names, whatever is nested.
    """
    if isinstance(space, Dict):
        parts = [encode(space.spaces[name], part_of(value, name)) for name in sorted(space.spaces)]
        return jnp.concatenate(parts)
    if isinstance(space, Tuple):
        return jnp.concatenate([encode(s, v) for s, v in zip(space.spaces, value, strict=True)])
    array = jnp.asarray(value)
    if isinstance(space, Discrete):
        return one_hot(array.reshape(()), space.n)
    if isinstance(space, MultiDiscrete):
        array = array.reshape(space.shape)
        return jnp.concatenate([one_hot(array[i], n) for i, n in enumerate(space.nvec)])
    if isinstance(space, Box):
        return array.reshape(-1).astype(jnp.float32)
    raise TypeError(f"encode: cannot encode {space!r}; expected {_ENCODED}")


def encoded_space(space: Space) -> Box:
    """Return the space of what ``encode`` gives."""
    if isinstance(space, Dict):
        return concatenated([encoded_space(space.spaces[name]) for name in sorted(space.spaces)])
    if isinstance(space, Tuple):
        return concatenated([encoded_space(part) for part in space.spaces])
    if isinstance(space, Discrete):
        return Box(0.0, 1.0, (space.n,))
    if isinstance(space, MultiDiscrete):
        return Box(0.0, 1.0, (sum(space.nvec),))
    if isinstance(space, Box):
        size = math.prod(space.shape)
        low, high = (np.broadcast_to(np.asarray(b, np.float32), space.shape) for b in (space.low, space.high))
        return _flat_box(low.reshape(size), high.reshape(size))
    raise TypeError(f"encoded_space: cannot encode {space!r}; expected {_ENCODED}")


def concatenated(boxes: Sequence[Box]) -> Box:
    """Return the space of values of flat boxes, one after another, float32."""
    low, high = (
        np.concatenate([np.full(box.shape, getattr(box, side), np.float32) for box in boxes])
        for side in ("low", "high")
    )
    return _flat_box(low, high)


def _flat_box(low: np.ndarray, high: np.ndarray) -> Box:
    """Return a flat float32 Box, with numbers for bounds where they are the same everywhere."""
    if low.size and (low == low[0]).all() and (high == high[0]).all():
        return Box(float(low[0]), float(high[0]), low.shape)
    return Box(low, high, low.shape)


_ENCODED = "Discrete, MultiDiscrete, Box, Dict or Tuple"
