from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import jax
import numpy as np
from jax.typing import ArrayLike
from numpy.typing import DTypeLike

class Space:
    def sample(self, key: jax.Array) -> Any: ...
    def contains(self, x: Any) -> Any: ...

class Discrete(Space):
    n: int
    shape: tuple[()]
    dtype: np.dtype[Any]
    def __init__(self, num_categories: int, *, dtype: DTypeLike = ...) -> None: ...
    def sample(self, key: jax.Array) -> jax.Array: ...
    def contains(self, x: ArrayLike) -> jax.Array: ...

class Box(Space):
    low: ArrayLike
    high: ArrayLike
    shape: tuple[int, ...]
    dtype: Any
    def __init__(
        self, low: ArrayLike, high: ArrayLike, shape: tuple[int, ...], dtype: DTypeLike = ...
    ) -> None: ...
    def sample(self, key: jax.Array) -> jax.Array: ...
    def contains(self, x: ArrayLike) -> jax.Array: ...

class Dict(Space):
    spaces: Mapping[str, Any]
    def __init__(self, spaces: Mapping[str, Space]) -> None: ...

class Tuple(Space):
    spaces: Sequence[Any]
    def __init__(self, spaces: Sequence[Space]) -> None: ...

def gymnax_space_to_gym_space(space: Space) -> gymnasium.spaces.Space[Any]: ...
