"""The core's network in RLlib's layout: batch first, and a row's whole state in one vector."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from s5_adapters.core import ActorCritic, ActorCriticConfig
from s5_adapters.core.files.format1 import name_in_format_1
from s5_adapters.core.xla.shared import Shared
from s5_adapters.torch_bridge import JaxModule, jax2torch

__all__ = ["Programs", "RowNetwork", "as_module"]


@dataclass(frozen=True)
class RowNetwork:
    """An `ActorCritic` over rows.

    B is a number of rows, T their steps, S `state_size`. RLlib never lets an episode begin inside a row, so
    no row has resets: a fresh episode's row comes with the initial state.

    Attributes:
        config: the architecture.
    """

    config: ActorCriticConfig

    @functools.cached_property
    def net(self) -> ActorCritic:
        """The network itself."""
        return ActorCritic(self.config)

    @functools.cached_property
    def _state(self) -> Any:
        return jax.eval_shape(lambda: self.net.initial_state(1))

    @property
    def state_size(self) -> int:
        """Numbers in one row's state; 0 for a memory that keeps nothing."""
        return sum(math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(self._state))

    def initial_state(self) -> Array:
        """The state before an episode: `(1, S)` float32."""
        return self.pack(self.net.initial_state(1), 1)

    def init(self, seed: Array) -> Any:
        """Parameters drawn from a seed, () uint32."""
        return self.net.init(jax.random.key(seed))

    def act(self, prepared: Any, state: Array, obs: Array) -> tuple[Array, Array]:
        """One step: `state (B, S)`, `obs (B, *obs_shape)` to the next state and `dist_inputs (B, K)`."""
        return self.step(prepared, state, obs)[:2]

    def step(self, prepared: Any, state: Array, obs: Array) -> tuple[Array, Array, Array]:
        """As `act`, with the values `(B,)`."""
        starts = jnp.zeros(len(obs), bool)
        after, dist_inputs, values = self.net.step(prepared, self.unpack(state), obs, starts)
        return self.pack(after, len(obs)), dist_inputs, values

    def train(self, params: Any, state: Array, obs: Array) -> tuple[Array, Array]:
        """What a loss needs: `dist_inputs (B, T, K)` and `values (B, T)`."""
        return self.sequence(params, state, obs)[1:]

    def values(self, params: Any, state: Array, obs: Array) -> Array:
        """`values (B, T)` alone."""
        return self.sequence(params, state, obs)[2]

    def sequence(self, params: Any, state: Array, obs: Array) -> tuple[Array, Array, Array]:
        """Many steps: `state (B, S)`, `obs (B, T, *obs_shape)` to the last state, `dist_inputs`, `values`."""
        obs = jnp.swapaxes(obs, 0, 1)
        starts = jnp.zeros(obs.shape[:2], bool)
        after, dist_inputs, values = self.net.apply(params, self.unpack(state), obs, starts)
        return self.pack(after, obs.shape[1]), jnp.swapaxes(dist_inputs, 0, 1), values.T

    def pack(self, state: Any, rows: int) -> Array:
        """The core's state, leaves `(rows, ...)`, as `(rows, S)` float32."""
        leaves = [leaf.reshape(rows, -1).astype(jnp.float32) for leaf in jax.tree.leaves(state)]
        return jnp.concatenate([jnp.zeros((rows, 0), jnp.float32), *leaves], axis=1)

    def unpack(self, state: Array) -> Any:
        """The inverse of `pack`."""
        leaves, start = [], 0
        for leaf in jax.tree.leaves(self._state):
            stop = start + math.prod(leaf.shape[1:])
            leaves.append(state[:, start:stop].reshape(-1, *leaf.shape[1:]).astype(leaf.dtype))
            start = stop
        return jax.tree.unflatten(jax.tree.structure(self._state), leaves)


class Programs(Shared):
    """A network's functions, compiled: `init`, `prepare`, `act` and `step` for arrays, the others for torch.
    `Programs.of(network)` gives the one set of a process.
    """

    def __init__(self, network: RowNetwork) -> None:
        """Compile nothing yet."""
        super().__init__(network)
        self.init = jax.jit(network.init)
        self.prepare = jax.jit(network.net.prepare)
        self.act = jax.jit(network.act)
        self.step = jax.jit(network.step)
        self.train = jax2torch(network.train)
        self.values = jax2torch(network.values)
        self.sequence = jax2torch(network.sequence)


def as_module(params: Any) -> JaxModule:
    """The network's parameters as torch's, to which checkpoints of format 1 can be restored."""
    return JaxModule(params, name_in_format_1)
