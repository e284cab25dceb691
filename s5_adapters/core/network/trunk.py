"""The trunk of the actor-critic: encoder -> memory -> a torso each for actor and critic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from s5_adapters.core.memories.memory import Memory, Params, State
from s5_adapters.core.network.config import ActorCriticConfig
from s5_adapters.core.network.layers import MLP, Encoder, init_layer
from s5_adapters.core.shapes import Bool

Latents = tuple[Array, Array]
"""What the actor's head and the critic's head read, each ``(..., width)``."""


@dataclass(frozen=True)
class Trunk:
    """All of an actor-critic but its heads, as pure functions; immutable, equal and hashable by its fields.

    Parameters are a dict with ``encoder``, ``memory``, ``actor`` and ``critic`` (the torsos), and with
    ``critic_memory`` and ``critic_encoder`` where the critic has one of its own. A part without layers is an
    empty dict. The state is the memory's; with ``critic_memory="separate"`` it is the pair (actor's,
    critic's).

    Attributes:
        config: the architecture; its action is not used.
        two_inputs: actor and critic have observations of their own, the pair (actor's, critic's) wherever
            ``obs`` stands, and an encoder each.
        torso_gain: of the torsos' orthogonal initial weights.

    """

    config: ActorCriticConfig
    two_inputs: bool = False
    torso_gain: float = 2.0

    @cached_property
    def memory(self) -> Memory:
        """The memory model."""
        return self.config.make_memory()

    @property
    def has_two_memories(self) -> bool:
        """Whether the critic has a memory of its own."""
        return self.config.critic_memory == "separate"

    @property
    def has_two_encoders(self) -> bool:
        """Whether the critic has an encoder of its own, with parameters."""
        return self.two_inputs and bool(self.config.encoder or self.config.is_image)

    @property
    def latent_widths(self) -> tuple[int, int]:
        """Widths of what the actor's head and the critic's head read."""
        actor, critic = self._torso_inputs
        return [actor, *self.config.actor_torso][-1], [critic, *self.config.critic_torso][-1]

    @property
    def state_shape(self) -> Any:
        """The state's pytree with every leaf replaced by its shape without the batch axis."""
        shape = self.memory.state_shape
        return (shape, shape) if self.has_two_memories else shape

    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first step: zeros, leaves ``(batch_size, ...)``."""
        states = tuple(self.memory.initial_state(batch_size) for _ in self._memories)
        return states if self.has_two_memories else states[0]

    def keys(self, key: Array) -> dict[str, Array]:
        """Split a key into one for each part of the parameters."""
        names = [*self._encoders[:1], *self._memories, *self._torsos, *self._encoders[1:]]
        return dict(zip(names, jax.random.split(key, max(5, len(names))), strict=False))

    def init(self, key: Array) -> dict[str, Any]:
        """Make parameters."""
        keys = self.keys(key)
        memories = {part: self.memory.init(keys[part], self._encoded_width) for part in self._memories}
        return self._init_layers(keys) | memories

    def param_shapes(self) -> dict[str, Any]:
        """Return ``init``'s result as ``jax.ShapeDtypeStruct`` leaves, computing nothing."""
        layers: dict[str, Any] = jax.eval_shape(
            lambda key: self._init_layers(self.keys(key)), jax.random.key(0)
        )
        return layers | dict.fromkeys(self._memories, self.memory.param_shapes(self._encoded_width))

    def _init_layers(self, keys: dict[str, Array]) -> dict[str, Any]:
        obs_shape = self.config.obs_shape
        params = {part: init_layer(self._encoder, keys[part], *obs_shape) for part in self._encoders}
        torsos = zip(self._torsos.items(), self._torso_inputs, strict=True)
        return params | {part: init_layer(t, keys[part], n, name="MLP_0") for (part, t), n in torsos}

    def apply(
        self, params: Params, state: State, obs: Any, episode_starts: Bool[Array, "T B"]
    ) -> tuple[State, Latents]:
        """Run over a sequence.

        Args:
            params: from ``init``.
            state: what the first step carries in.
            obs: ``(T, B, *obs_shape)``, or a pair of such arrays (see ``two_inputs``).
            episode_starts: ``(T, B)`` bool.

        Returns:
            The state after the last step, and the latents ``(T, B, width)`` of actor and critic.

        Raises:
            TypeError, ValueError: an argument's dtype or shape does not fit; one line that names it.

        """
        for array in obs if self.two_inputs else (obs,):
            if array.ndim < 2 or array.shape[2:] != self.config.obs_shape:
                expected = ", ".join(map(str, ("time", "batch", *self.config.obs_shape)))
                raise ValueError(f"obs: got shape {array.shape}, expected ({expected})")

        def encode(params: Params, obs: Array) -> Array:
            return self._encode(params, obs.reshape(-1, *obs.shape[2:])).reshape(*obs.shape[:2], -1)

        def memorise(name: str, state: State, x: Array) -> tuple[State, Array]:
            return self.memory.apply(params[name], state, x, episode_starts)

        return self._run(params, state, obs, encode, memorise)

    def prepare(self, params: Params) -> dict[str, Any]:
        """Do once what every step would repeat; the result serves ``step`` until the parameters change."""
        return {**params, **{name: self.memory.prepare(params[name]) for name in self._memories}}

    def step(
        self, prepared: dict[str, Any], state: State, obs: Any, episode_starts: Bool[Array, "B"]
    ) -> tuple[State, Latents]:
        """Run over one step: ``obs (B, *obs_shape)`` or a pair of such, ``episode_starts (B,)`` bool.

        Returns:
            The next state, and the latents ``(B, width)`` of actor and critic.

        """

        def memorise(name: str, state: State, x: Array) -> tuple[State, Array]:
            return self.memory.step(prepared[name], state, x, episode_starts)

        return self._run(prepared, state, obs, self._encode, memorise)

    def _run(
        self,
        params: Params,
        state: State,
        obs: Any,
        encode: Callable[[Params, Array], Array],
        memorise: Callable[[str, State, Array], tuple[State, Array]],
    ) -> tuple[State, Latents]:
        inputs = obs if self.two_inputs else (obs,)
        # Two inputs without layers before the memory leave nothing to keep for the critic's encoder.
        encoded = [encode(params.get(n, {}), x) for n, x in zip(_ENCODERS, inputs, strict=False)]
        if self.has_two_memories:
            actor_state, memorised = memorise("memory", state[0], encoded[0])
            critic_state, for_critic = memorise("critic_memory", state[1], encoded[-1])
            state = actor_state, critic_state
        else:
            state, memorised = memorise("memory", state, encoded[0])
            for_critic = self._critic_input(encoded[-1], memorised)
        actor, critic = (
            jnp.asarray(torso.apply({"params": params[name]}, x))
            for (name, torso), x in zip(self._torsos.items(), (memorised, for_critic), strict=True)
        )
        return state, (actor, critic)

    def _critic_input(self, encoded: Array, memorised: Array) -> Array:
        if self.config.critic_memory == "none":
            return encoded
        return memorised if self.config.critic_memory == "shared" else lax.stop_gradient(memorised)

    def _encode(self, params: Params, obs: Array) -> Array:
        return jnp.asarray(self._encoder.apply({"params": params}, obs))

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder(self.config)

    @cached_property
    def _torsos(self) -> dict[str, MLP]:
        config = self.config
        widths = {"actor": config.actor_torso, "critic": config.critic_torso}
        return {part: MLP(w, config.activation, self.torso_gain) for part, w in widths.items()}

    @property
    def _encoders(self) -> tuple[str, ...]:
        return _ENCODERS if self.has_two_encoders else _ENCODERS[:1]

    @property
    def _memories(self) -> tuple[str, ...]:
        return ("memory", "critic_memory") if self.has_two_memories else ("memory",)

    @property
    def _encoded_width(self) -> int:
        first = self.config.cnn_features if self.config.is_image else self.config.obs_shape[0]
        return [first, *self.config.encoder][-1]

    @property
    def _torso_inputs(self) -> tuple[int, int]:
        """Widths of what the two torsos read."""
        width = self.memory.d_model
        return width, self._encoded_width if self.config.critic_memory == "none" else width


_ENCODERS = ("encoder", "critic_encoder")
