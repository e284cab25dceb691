"""The actor-critic network: a trunk (encoder, memory, torsos) and the heads on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
from jax import Array

from s5_adapters.core.memories.memory import Memory, Params, State
from s5_adapters.core.network.config import ActorCriticConfig
from s5_adapters.core.network.heads import Heads
from s5_adapters.core.network.masks import MaskedObservation, mask_inputs, split_mask
from s5_adapters.core.network.trunk import Trunk
from s5_adapters.core.shapes import Bool, Float, Shaped
from s5_adapters.core.xla.shared import Shared


class _Initialiser(Shared):
    """``ActorCritic.init``, compiled."""

    def __init__(self, config: ActorCriticConfig) -> None:
        super().__init__(config)
        self.run = jax.jit(ActorCritic(config)._init)


@dataclass(frozen=True)
class ActorCritic:
    """A recurrent actor-critic of pure functions; immutable, equal and hashable by its configuration.

    Parameters are ``{"trunk": ..., "heads": ...}`` (see ``Trunk`` and ``Heads``), the state is the trunk's.
    """

    config: ActorCriticConfig

    @cached_property
    def trunk(self) -> Trunk:
        """Everything but the heads."""
        return Trunk(self.config)

    @cached_property
    def heads(self) -> Heads:
        """The actor's and the critic's head, which read the trunk's latents."""
        return Heads(self.config.action, self.trunk.latent_widths)

    @property
    def memory(self) -> Memory:
        """The memory model."""
        return self.trunk.memory

    @property
    def state_shape(self) -> Any:
        """The state's pytree with every leaf replaced by its shape without the batch axis."""
        return self.trunk.state_shape

    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first step: zeros, leaves ``(batch_size, ...)``."""
        return self.trunk.initial_state(batch_size)

    def init(self, key: Array) -> dict[str, Any]:
        """Make parameters, compiled as one program.

        Kernels of dense layers and convolutions are orthogonal, their biases zero, the memory's parameters
        its own ``init``'s. The fresh actor prefers no action, and a ``Box`` has standard deviations of 1.

        Args:
            key: a typed key, as ``jax.random.key`` makes it; one key gives the same parameters each time.

        Returns:
            ``{"trunk": ..., "heads": ...}``, nested dicts of float32 arrays, of the shapes that
            ``param_shapes`` tells.

        """
        params: dict[str, Any] = self._initialiser.run(key)
        return params

    @cached_property
    def _initialiser(self) -> _Initialiser:
        return _Initialiser.of(self.config)

    def _init(self, key: Array) -> dict[str, Any]:
        keys = self.trunk.keys(key)  # a head is drawn by its torso's key, under another name
        return {"trunk": self.trunk.init(key), "heads": self.heads.init(keys["actor"], keys["critic"])}

    def param_shapes(self) -> dict[str, Any]:
        """Return ``init``'s result as ``jax.ShapeDtypeStruct`` leaves, computing nothing."""
        return {"trunk": self.trunk.param_shapes(), "heads": self.heads.param_shapes()}

    def apply(
        self,
        params: Params,
        state: State,
        obs: Shaped[Array, "T B *obs_shape"] | MaskedObservation,
        episode_starts: Bool[Array, "T B"],
    ) -> tuple[State, Float[Array, "T B K"], Float[Array, "T B"]]:
        """Run over a sequence.

        Args:
            params: from ``init``.
            state: what the first step carries in.
            obs: ``(T, B, *obs_shape)``; with the mask of allowed actions, a ``MaskedObservation``.
            episode_starts: ``(T, B)`` bool.

        Returns:
            The state after the last step, the distribution's inputs ``(T, B, K)`` (see ``distributions``),
            values ``(T, B)``.

        Raises:
            TypeError, ValueError: an argument's dtype or shape does not fit; one line that names it.

        """
        obs, action_mask = split_mask(obs)
        state, latents = self.trunk.apply(params["trunk"], state, obs, episode_starts)
        inputs, value = self.heads.apply(params["heads"], *latents)
        return state, mask_inputs(self.config.action, inputs, action_mask), value

    def prepare(self, params: Params) -> dict[str, Any]:
        """Do once what every step would repeat; the result serves ``step`` until the parameters change."""
        return {"trunk": self.trunk.prepare(params["trunk"]), "heads": params["heads"]}

    def step(
        self,
        prepared: dict[str, Any],
        state: State,
        obs: Shaped[Array, "B *obs_shape"] | MaskedObservation,
        episode_starts: Bool[Array, "B"],
    ) -> tuple[State, Float[Array, "B K"], Float[Array, "B"]]:
        """Run over one step: ``obs (B, *obs_shape)``, masked or not, ``episode_starts (B,)`` bool.

        Returns:
            The next state, the distribution's inputs ``(B, K)``, values ``(B,)``.

        """
        obs, action_mask = split_mask(obs)
        state, latents = self.trunk.step(prepared["trunk"], state, obs, episode_starts)
        inputs, value = self.heads.apply(prepared["heads"], *latents)
        return state, mask_inputs(self.config.action, inputs, action_mask), value
