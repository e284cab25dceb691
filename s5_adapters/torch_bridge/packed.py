"""JAX functions that are called at every step: few arrays go in, one comes back.

Between torch and JAX, and into a compiled program, an array costs a microsecond or more whatever its size,
and a step of a small network has a hundred of them. So tensors travel end to end in one array, and the small
ones among a network's parameters lie in one as well.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch as th
from flax import struct

from s5_adapters.torch_bridge.arrays import between_graphs, to_jax, to_torch

__all__ = ["Joined", "PackedJit", "join", "unjoin"]

PyTree = Any

JOINED_NUMBERS: Final = 1024
"""Arrays of up to so many numbers are joined; the parts of larger ones would be copied at every step."""


_FLOAT32, _dtype = {th.float32}, attrgetter("dtype")


@dataclass(frozen=True)
class _Places:
    """The shapes of a pytree's leaves, and which of them are joined."""

    treedef: Any
    shapes: tuple[tuple[int, ...], ...]

    @property
    def is_small(self) -> list[bool]:
        return [math.prod(shape) <= JOINED_NUMBERS for shape in self.shapes]


@struct.dataclass
class Joined:
    """A pytree of float arrays, the small ones in one row.

    Attributes:
        row: the small arrays end to end.
        large: the others.
        places: where each leaf is.
    """

    row: jax.Array
    large: list[jax.Array]
    places: _Places = struct.field(pytree_node=False)


def join(tree: PyTree) -> Joined:
    """Join the small leaves of a pytree of float arrays; to be called inside `jax.jit`."""
    leaves, treedef = jax.tree.flatten(tree)
    places = _Places(treedef, tuple([leaf.shape for leaf in leaves]))
    chosen = places.is_small
    row = jnp.concatenate(
        [jnp.zeros(0, jnp.float32), *[x.ravel() for x in itertools.compress(leaves, chosen)]]
    )
    return Joined(row, [x for x, small in zip(leaves, chosen, strict=True) if not small], places)


def unjoin(joined: Joined) -> PyTree:
    """Return the pytree that was joined; inside `jax.jit`, where it costs nothing."""
    places, large = joined.places, iter(joined.large)
    shapes = list(itertools.compress(places.shapes, places.is_small))
    small = iter(_split(joined.row, shapes))
    leaves = [next(small) if is_small else next(large) for is_small in places.is_small]
    return jax.tree.unflatten(places.treedef, leaves)


def _split(row: jax.Array, shapes: list[tuple[int, ...]]) -> list[jax.Array]:
    ends = itertools.accumulate(map(math.prod, shapes))
    parts = zip(ends, shapes, strict=True)
    return [row[end - math.prod(shape) : end].reshape(shape) for end, shape in parts]


class _Result(NamedTuple):
    """One result in the row: what `Tensor.as_strided` takes."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


class _Program:
    """A program that `PackedJit` compiled for arguments of one structure and of certain shapes."""

    def __init__(self, fn: Callable[..., PyTree], treedef: Any, shapes: list[tuple[int, ...]]) -> None:
        self.results: list[_Result] = []
        self.order: list[int] = []
        self.treedef: Any = None

        def packed(held: PyTree, row: jax.Array) -> jax.Array:
            args = jax.tree.unflatten(treedef, _split(row, shapes))
            leaves, self.treedef = jax.tree.flatten(fn(held, *args))
            once = list({id(leaf): leaf for leaf in leaves}.values())  # one state may serve actor and critic
            self.order = [next(i for i, other in enumerate(once) if other is leaf) for leaf in leaves]
            ends = itertools.accumulate([leaf.size for leaf in once])
            self.results = [
                _Result(leaf.shape, _strides(leaf.shape), end - leaf.size)
                for leaf, end in zip(once, ends, strict=True)
            ]
            return jnp.concatenate([leaf.ravel() for leaf in once])

        packed.__name__ = fn.__name__
        self.run = jax.jit(packed)
        self._length = sum(map(math.prod, shapes))
        self._rows: list[tuple[th.Tensor, np.ndarray]] = []

    def run_on_cpu(self, held: PyTree, parts: list[th.Tensor]) -> th.Tensor:
        """Call the program with float32 tensors on the CPU: what `to_jax` and `to_torch` do, unchecked.

        The arguments' row is used again, by one call at a time: the copy of the result awaits what reads it.
        """
        try:
            row, array = self._rows.pop()
        except IndexError:
            row = th.empty(self._length)
            array = row.numpy()
        th.cat(parts, out=row)
        results = np.array(self.run(held, array))
        self._rows.append((row, array))
        return th.from_numpy(results)


class PackedJit:
    """`jax.jit` for a function of tensors: they go in one array, and the results are views of one.

    Nothing is differentiated.

    Args:
        fn: a pure function `fn(held, *args)`: `held` is any pytree of JAX arrays, handed over as they are;
            `args` hold tensors. The tensors are of one floating dtype, and so are the results.
    """

    def __init__(self, fn: Callable[..., PyTree]) -> None:
        """Compile nothing yet."""
        self._fn = fn
        self._programs: dict[Hashable, _Program] = {}

    @between_graphs
    def __call__(self, held: PyTree, *args: PyTree) -> PyTree:
        """Return the function's results as tensors."""
        leaves, treedef = jax.tree.flatten(args)
        given = treedef, *[leaf.shape for leaf in leaves]
        program = self._programs.get(given)
        if program is None:
            shapes = [tuple(leaf.shape) for leaf in leaves]
            program = self._programs[given] = _Program(self._fn, treedef, shapes)
        parts = [leaf.ravel() for leaf in leaves]
        if {*map(_dtype, parts)} == _FLOAT32 and parts[0].device.type == "cpu":
            row = program.run_on_cpu(held, parts)
        else:
            row = to_torch(program.run(held, to_jax(th.cat(parts), "an observation or a state")))
        results = [row.as_strided(*result) for result in program.results]
        return jax.tree.unflatten(program.treedef, [results[i] for i in program.order])


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple([math.prod(shape[i + 1 :]) for i in range(len(shape))])
