"""How the environments of a run are split over devices, and all that ever crosses from one to another.

Inside ``jax.shard_map`` each device holds ``num_envs / devices`` environments for good. What is drawn for
environments is what one device would draw for all of them: each takes its own part. Only the shuffle into
minibatches is another, since each group of environments is shuffled by itself.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

AXIS = "devices"
"""The mesh's axis."""

T = TypeVar("T")


@dataclass(frozen=True)
class Split:
    """The split of a run's environments over devices; its methods are for traced code on one of them.

    On one device that shuffles in one group every method is what it would be if there were no split.

    Attributes:
        devices: how many devices hold an equal share of the environments each.
        groups: how many equal groups of environments are shuffled by themselves, a multiple of ``devices``.
            One device with eight groups draws the minibatches of eight devices.
    """

    devices: int = 1
    groups: int = 1

    def mean(self, tree: T) -> T:
        """Return the mean over devices of every array, each the mean of an equal share, by one exchange."""
        if self.devices == 1:
            return tree
        flat, unravel = ravel_pytree(tree)
        mean: T = unravel(jax.lax.pmean(flat, AXIS))
        return mean

    def sum(self, tree: T) -> T:
        """Return the sum over devices of every array."""
        total: T = tree if self.devices == 1 else jax.lax.psum(tree, AXIS)
        return total

    def max(self, x: jax.Array) -> jax.Array:
        """Return the largest of the devices' numbers."""
        return x if self.devices == 1 else jax.lax.pmax(x, AXIS)

    def min(self, x: jax.Array) -> jax.Array:
        """Return the smallest of the devices' numbers."""
        return x if self.devices == 1 else jax.lax.pmin(x, AXIS)

    def moments(self, x: jax.Array, axis: int | None = None) -> tuple[jax.Array, jax.Array]:
        """Return mean and population variance over ``axis`` (all axes) and devices, by one exchange.

        Devices exchange both moments, not sums of squares, which cancel where the mean is large.
        """
        mean, variance = x.mean(axis), x.var(axis)
        if self.devices == 1:
            return mean, variance
        means, variances = jax.lax.all_gather(jnp.stack([mean, variance]), AXIS, axis=1)
        return means.mean(0), variances.mean(0) + means.var(0)

    def keys(self, key: jax.Array, num_envs: int, *steps: int) -> jax.Array:
        """Return this device's part of ``jax.random.split(key, (*steps, num_envs))``.

        With JAX's default generator (threefry, partitionable) the n-th key of a split is ``fold_in(key, n)``,
        so no device makes the others' keys. With another, they are other keys, and as good.
        """
        if self.devices == 1:
            return jax.random.split(key, (*steps, num_envs))
        first = jnp.arange(math.prod(steps), dtype=jnp.uint32)[:, None] * jnp.uint32(num_envs)
        own = jnp.arange(num_envs // self.devices) + self.first_env(num_envs)
        numbers = (first + own.astype(jnp.uint32)).reshape(-1)
        made = jax.vmap(partial(jax.random.fold_in, key))(numbers)
        return made.reshape(*steps, num_envs // self.devices)

    def draw(self, sample: Callable[[jax.Array], jax.Array], inputs: jax.Array) -> jax.Array:
        """Return this device's rows of what ``sample`` draws, all rows at once, for everybody's inputs.

        Args:
            sample: maps ``(rows, ...)`` to ``(rows, ...)``, each row by its own inputs and randomness.
            inputs: of this device's rows; the others' are not needed, since their draws are thrown away.
        """
        if self.devices == 1:
            return sample(inputs)
        rows = inputs.shape[0]
        first = self.first_env(rows * self.devices)
        everyone = jnp.zeros((rows * self.devices, *inputs.shape[1:]), inputs.dtype)
        drawn = sample(jax.lax.dynamic_update_slice_in_dim(everyone, inputs, first, 0))
        return jax.lax.dynamic_slice_in_dim(drawn, first, rows, 0)

    def minibatches(self, key: jax.Array, num_envs: int, count: int) -> jax.Array:
        """Shuffle this device's environments and cut them: ``(count, columns)``, counted from its first.

        Every group gives each minibatch an equal part of itself.
        """
        if self.groups == 1:
            return jax.random.permutation(key, num_envs).reshape(count, -1)
        own, size = self.groups // self.devices, num_envs // self.groups
        groups = self._device() * own + jnp.arange(own)
        keys = jax.vmap(partial(jax.random.fold_in, key))(groups)
        orders = jax.vmap(lambda key: jax.random.permutation(key, size))(keys)
        columns = orders + size * jnp.arange(own)[:, None]
        return columns.reshape(own, count, -1).swapaxes(0, 1).reshape(count, -1)

    def first_env(self, num_envs: int) -> jax.Array:
        """Return the place of this device's first environment among all."""
        return self._device() * (num_envs // self.devices)

    def _device(self) -> jax.Array:
        return jnp.int32(0) if self.devices == 1 else jax.lax.axis_index(AXIS)


WHOLE = Split()
"""One device that holds everything."""


def split_of(begun: int, now: int) -> Split:
    """Return the split on ``now`` devices of a run that was begun on ``begun``.

    Minibatches are drawn as on the devices that it was begun on, where those can be divided among the
    devices now; else each of these shuffles its own environments.
    """
    return Split(now, begun if begun % now == 0 else now)
