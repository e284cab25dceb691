"""The core's network in RLlib's layout: batch first, and a row's whole state in one vector."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from s5_adapters.core import ActorCritic, ActorCriticConfig
from s5_adapters.core.files.format1 import name_in_format_1
from s5_adapters.core.memories.state_codec import StateCodec
from s5_adapters.core.xla.shared import Shared
from s5_adapters.torch_bridge import JaxModule, jax2torch
from s5_adapters.torch_bridge.packed import Joined, PackedJit, join, unjoin

__all__ = ["Programs", "RowNetwork", "as_module"]


@dataclass(frozen=True)
class RowNetwork:
    """An `ActorCritic` over rows.

    B is a number of rows, T their steps, S `state.size`. RLlib never lets an episode begin inside a row, so
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
    def state(self) -> StateCodec:
        """How a row's state lies in one vector."""
        return StateCodec(self.net.state_shape)

    def init(self, seed: Array) -> Any:
        """Return parameters drawn from a seed, () uint32."""
        return self.net.init(jax.random.key(seed))

    def act(self, prepared: Any, state: Array, obs: Array) -> tuple[Array, Array]:
        """Map one step: `state (B, S)`, `obs (B, *obs_shape)` to the next state and `dist_inputs (B, K)`."""
        return self.step(prepared, state, obs)[:2]

    def step(self, prepared: Any, state: Array, obs: Array) -> tuple[Array, Array, Array]:
        """Map one step as `act` does, with the values `(B,)`."""
        starts = jnp.zeros(len(obs), bool)
        after, dist_inputs, values = self.net.step(prepared, self.state.unpack(state), obs, starts)
        return self.state.pack(after, len(obs)), dist_inputs, values

    def train(self, params: Any, state: Array, obs: Array) -> tuple[Array, Array]:
        """Return what a loss needs: `dist_inputs (B, T, K)` and `values (B, T)`."""
        return self.sequence(params, state, obs)[1:]

    def values(self, params: Any, state: Array, obs: Array) -> Array:
        """Return `values (B, T)` alone."""
        return self.sequence(params, state, obs)[2]

    def sequence(self, params: Any, state: Array, obs: Array) -> tuple[Array, Array, Array]:
        """Map a sequence: `state (B, S)`, `obs (B, T, *obs_shape)` to last state, `dist_inputs`, `values`."""
        obs = jnp.swapaxes(obs, 0, 1)
        starts = jnp.zeros(obs.shape[:2], bool)
        after, dist_inputs, values = self.net.apply(params, self.state.unpack(state), obs, starts)
        return self.state.pack(after, obs.shape[1]), jnp.swapaxes(dist_inputs, 0, 1), values.T


class Programs(Shared):
    """A network's functions, compiled: `init` and `prepare` for arrays, the others for torch.
    `Programs.of(network)` gives the one set of a process.

    `act` and `step` take `((prepared,), state, obs)`, or `((prepared, images), state)` where observations
    are bytes.
    """

    def __init__(self, network: RowNetwork) -> None:
        """Compile nothing yet."""
        super().__init__(network)

        def prepare(params: Any) -> Joined:
            return join(network.net.prepare(params))

        def act(held: tuple[Any, ...], *args: Any) -> Any:
            return network.act(unjoin(held[0]), *args, *held[1:])

        def step(held: tuple[Any, ...], *args: Any) -> Any:
            return network.step(unjoin(held[0]), *args, *held[1:])

        self.init = jax.jit(network.init)
        self.prepare = jax.jit(prepare)
        self.act = PackedJit(act)
        self.step = PackedJit(step)
        self.train = jax2torch(network.train)
        self.values = jax2torch(network.values)
        self.sequence = jax2torch(network.sequence)


def as_module(params: Any) -> JaxModule:
    """Return the network's parameters as torch's, to which checkpoints of format 1 can be restored."""
    return JaxModule(params, name_in_format_1)
