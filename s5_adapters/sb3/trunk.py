"""The part of a policy that JAX computes: the core's trunk in the layout of sb3-contrib.

Stable-Baselines3 keeps rows flat, `(n_seq * steps, features)` with each sequence's steps together, and a
recurrent state as a pair (hidden, cell) of `(n_layers, n_seq, width)`. Everything is transposed here,
inside the compiled functions, and nowhere else.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from s5_adapters.core.network.trunk import Trunk
from s5_adapters.core.xla.shared import Shared
from s5_adapters.sb3.state import Pair, StateLayout
from s5_adapters.torch_bridge import jax2torch
from s5_adapters.torch_bridge.packed import Joined, PackedJit, join, unjoin

__all__ = ["FlatTrunk", "Programs"]

Params = dict[str, Any]


@dataclass(frozen=True)
class FlatTrunk:
    """The core's `Trunk` over SB3's flat rows and state pairs.

    Attributes:
        core: the trunk. An image's features arrive flattened, channels first.
        orthogonal: initialise dense layers as SB3's `ortho_init=True` does (orthogonal, zero biases), else as
            torch does (uniform in +-1/sqrt(fan_in)).
    """

    core: Trunk
    orthogonal: bool = True

    @functools.cached_property
    def layout(self) -> StateLayout:
        """The state's place in sb3-contrib's pair."""
        return StateLayout(self.core.memory)

    def init(self, key: jax.Array) -> Params:
        """Return the trunk's parameters."""
        params = self.core.init(key)
        if self.orthogonal:
            return params
        dense = {name: part for name, part in params.items() if not name.endswith("memory")}
        return params | _uniform(key, dense)

    def step(
        self,
        prepared: Params,
        pi: Pair,
        vf: Pair | None,
        features: tuple[jax.Array, ...],
        starts: jax.Array,
    ) -> tuple[jax.Array, jax.Array, Pair, Pair]:
        """Return one step of actor and critic together.

        Args:
            prepared: from the trunk's `prepare`.
            pi: the actor's state, two arrays `(n_layers, B, width)`.
            vf: the critic's; read only where the critic has a memory of its own, None where it has not.
            features: `(B, F)` once, or once for each of the two.
            starts: `(B,)`, nonzero where an episode starts.

        Returns:
            latents for the action head and the value head, the actor's and the critic's next state.
        """
        obs = [self._shaped(x) for x in features]
        state, latents = self.core.step(prepared, self._state(pi, vf), self._obs(obs), starts > 0.5)
        return *latents, *self._pairs(state, len(starts))

    def act(
        self, prepared: Params, pi: Pair, features: jax.Array, starts: jax.Array
    ) -> tuple[jax.Array, Pair]:
        """Return one step of the actor alone: its latent and its next state."""
        inputs = (features,) * (1 + self.core.two_inputs)
        latent, _, pi, _ = self.step(prepared, pi, pi, inputs, starts)
        return latent, pi

    def sequence(
        self, params: Params, pi: Pair, vf: Pair, features: tuple[jax.Array, ...], starts: jax.Array
    ) -> tuple[jax.Array, jax.Array, Pair, Pair]:
        """Map whole sequences, differentiable: rows flat, `(n_seq * steps, F)`, `starts (n_seq * steps,)`."""
        n_seq = pi[0].shape[1]

        def time_first(rows: jax.Array) -> jax.Array:
            return jnp.swapaxes(rows.reshape(n_seq, -1, *rows.shape[1:]), 0, 1)

        obs = [time_first(self._shaped(x)) for x in features]
        state, latents = self.core.apply(
            params, self._state(pi, vf), self._obs(obs), time_first(starts > 0.5)
        )
        actor, critic = (jnp.swapaxes(latent, 0, 1).reshape(-1, latent.shape[-1]) for latent in latents)
        return actor, critic, *self._pairs(state, n_seq)

    def _shaped(self, rows: jax.Array) -> jax.Array:
        config = self.core.config
        if not config.is_image:
            return rows
        height, width, channels = config.obs_shape
        return jnp.moveaxis(rows.reshape(-1, channels, height, width), 1, -1)

    def _obs(self, arrays: list[jax.Array]) -> Any:
        return tuple(arrays) if self.core.two_inputs else arrays[0]

    def _state(self, pi: Pair, vf: Pair | None) -> Any:
        state = self.layout.unpack(pi)
        if not self.core.has_two_memories:
            return state
        assert vf is not None
        return state, self.layout.unpack(vf)

    def _pairs(self, state: Any, batch: int) -> tuple[Pair, Pair]:
        if self.core.has_two_memories:
            pi, vf = (self.layout.pack(part, batch) for part in state)
            return pi, vf
        pair = self.layout.pack(state, batch)
        return pair, pair


class Programs(Shared):
    """A trunk's functions, compiled: `init` and `prepare` for arrays; `step` and `act`, and
    `sequence` with gradients, for torch. `Programs.of(trunk)` gives the one set of a process.
    """

    def __init__(self, trunk: FlatTrunk) -> None:
        """Compile nothing yet."""
        super().__init__(trunk)

        def prepare(params: Params, *heads: jax.Array) -> Joined:
            return join((trunk.core.prepare(params), heads))

        def step(held: Joined, *args: Any) -> Any:
            return trunk.step(unjoin(held)[0], *args)

        def act(held: Joined, *args: Any) -> Any:
            return trunk.act(unjoin(held)[0], *args)

        self.init = jax.jit(trunk.init)
        self.prepare = jax.jit(prepare)
        self.step = PackedJit(step)
        self.act = PackedJit(act)
        self.sequence = jax2torch(trunk.sequence)


def _uniform(key: jax.Array, params: Params) -> Params:
    """Draw every dense and convolutional layer anew as torch initialises its own: +-1/sqrt(fan_in)."""
    if "kernel" not in params:
        keys = jax.random.split(key, max(1, len(params)))
        return {name: _uniform(k, params[name]) for name, k in zip(sorted(params), keys, strict=False)}
    bound = 1 / math.sqrt(math.prod(params["kernel"].shape[:-1]))
    return {
        name: jax.random.uniform(k, params[name].shape, jnp.float32, -bound, bound)
        for name, k in zip(("kernel", "bias"), jax.random.split(key), strict=True)
    }
