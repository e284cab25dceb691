"""The actor-critic network: encoder -> memory -> actor and critic torsos -> heads."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import Array, lax

from s5_adapters.core.checks import integer, integers, one_of
from s5_adapters.core.memories.memory import Memory, Params, State, make_memory
from s5_adapters.core.network.distributions import ActionSpec, Box
from s5_adapters.core.xla.initializers import orthogonal
from s5_adapters.core.xla.rows import Dense
from s5_adapters.core.xla.shared import Shared

ACTIVATIONS: Final = {
    "tanh": nn.tanh,
    "relu": nn.relu,
    "leaky_relu": nn.leaky_relu,
    "elu": nn.elu,
    "gelu": nn.gelu,
}
"""Activations of encoder and torsos: those that torch computes alike (gelu by its tanh approximation)."""

CRITIC_MEMORIES: Final = ("shared", "shared_detached", "separate", "none")
SMALLEST_IMAGE: Final = 36
"""Pixels a side: below this the Nature CNN's convolutions leave nothing."""


@dataclass(frozen=True, kw_only=True)
class ActorCriticConfig:
    """The network's architecture, as plain data.

    Attributes:
        obs_shape: ``(features,)``, or ``(height, width, channels)`` for an image, which goes through the
            Nature CNN first. uint8 images are scaled to [0, 1].
        action: ``Discrete``, ``MultiDiscrete`` or ``Box``.
        memory: name of a registered memory.
        memory_config: its keyword arguments; a mapping is accepted and kept as a sorted tuple of pairs.
        encoder: widths of the dense layers before the memory.
        actor_torso: widths of the dense layers between memory and actor head.
        critic_torso: widths of the dense layers between memory and critic head.
        activation: one of ``ACTIVATIONS``, after every dense layer but the heads.
        critic_memory: what the critic reads. ``"shared"``: the actor's memory, which both train (Lu et al.
            2023). ``"shared_detached"``: the same, but the critic's gradient stops before it. ``"separate"``:
            a memory of its own. ``"none"``: the encoder's output, so that the critic remembers nothing.
        cnn_features: width of the Nature CNN's last layer; images only.

    """

    obs_shape: tuple[int, ...]
    action: ActionSpec
    memory: str = "s5"
    memory_config: Mapping[str, Any] | tuple[tuple[str, Any], ...] = field(default=())
    encoder: tuple[int, ...] = (128, 256)
    actor_torso: tuple[int, ...] = (128, 128)
    critic_torso: tuple[int, ...] = (128, 128)
    activation: str = "leaky_relu"
    critic_memory: str = "shared"
    cnn_features: int = 512

    def __post_init__(self) -> None:
        memory = make_memory(self.memory, **dict(self.memory_config))
        checked = {
            "obs_shape": integers("obs_shape", self.obs_shape),
            "memory_config": tuple(sorted(memory.config.items())),
            "encoder": integers("encoder", self.encoder),
            "actor_torso": integers("actor_torso", self.actor_torso),
            "critic_torso": integers("critic_torso", self.critic_torso),
            "activation": one_of("activation", self.activation, list(ACTIVATIONS)),
            "critic_memory": one_of("critic_memory", self.critic_memory, CRITIC_MEMORIES),
            "cnn_features": integer("cnn_features", self.cnn_features),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if len(self.obs_shape) not in (1, 3):
            raise ValueError(
                f"obs_shape: got {self.obs_shape}, expected (features,) or (height, width, channels)"
            )
        if self.is_image and min(self.obs_shape[:2]) < SMALLEST_IMAGE:
            raise ValueError(
                f"obs_shape: got {self.obs_shape}, expected at least {SMALLEST_IMAGE} pixels a side"
            )
        if not isinstance(self.action, ActionSpec):
            raise ValueError(f"action: got {self.action!r}, expected a Discrete, MultiDiscrete or Box")

    @property
    def is_image(self) -> bool:
        """Whether observations are images."""
        return len(self.obs_shape) == 3

    def make_memory(self) -> Memory:
        """Return the memory that this configuration names."""
        return make_memory(self.memory, **dict(self.memory_config))

    def replace(self, **changes: Any) -> "ActorCriticConfig":
        """Return a copy with some fields changed."""
        return replace(self, **changes)


class MLP(nn.Module):
    """Dense layers, each followed by the activation; orthogonal weights, zero biases."""

    widths: tuple[int, ...]
    activation: str
    scale: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map ``(..., F)`` to ``(..., widths[-1])``."""
        for width in self.widths:
            x = Dense(width, kernel_init=orthogonal(self.scale))(x)
            x = ACTIVATIONS[self.activation](x)
        return x


class NatureCNN(nn.Module):
    """Three convolutions and a dense layer, each with ReLU (Mnih et al. 2015, doi 10.1038/nature14236)."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map images ``(N, height, width, channels)`` to ``(N, features)``."""
        for channels, size, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            init = orthogonal(2.0**0.5)
            x = nn.Conv(channels, (size, size), (stride, stride), padding="VALID", kernel_init=init)(x)
            x = nn.relu(x)
        x = x.reshape(len(x), -1)
        return nn.relu(Dense(self.features, kernel_init=orthogonal(2.0**0.5))(x))


class Encoder(nn.Module):
    """Nature CNN for images, then dense layers."""

    config: ActorCriticConfig

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        """Map ``(N, *obs_shape)`` to ``(N, features)`` float32."""
        x = obs.astype(jnp.float32)
        if self.config.is_image:
            x = NatureCNN(self.config.cnn_features)(x / 255.0 if obs.dtype == jnp.uint8 else x)
        return MLP(self.config.encoder, self.config.activation, scale=2.0**0.5)(x)


class Head(nn.Module):
    """Torso and head of the actor or the critic."""

    torso: tuple[int, ...]
    activation: str
    outputs: int
    scale: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map ``(..., F)`` to ``(..., outputs)``."""
        x = MLP(self.torso, self.activation, scale=2.0)(x)
        return Dense(self.outputs, kernel_init=orthogonal(self.scale))(x)


@struct.dataclass
class PreparedActorCritic:
    """Parameters ready to act with: the memories prepared, the rest as it is."""

    params: Params
    memories: tuple[Any, ...]


class _Initialiser(Shared):
    """``ActorCritic.init``, compiled."""

    def __init__(self, config: ActorCriticConfig) -> None:
        super().__init__(config)
        self.run = jax.jit(ActorCritic(config)._init)


@dataclass(frozen=True)
class ActorCritic:
    """A recurrent actor-critic of pure functions; immutable, equal and hashable by its configuration.

    Parameters are a dict with ``encoder``, ``memory``, ``actor``, ``critic``, with ``critic_memory`` where
    the critic has one of its own, and with ``log_std`` for a ``Box``. The state is the memory's; with
    ``critic_memory="separate"`` it is the pair (actor's, critic's).
    """

    config: ActorCriticConfig

    @cached_property
    def memory(self) -> Memory:
        """The memory model."""
        return self.config.make_memory()

    @property
    def has_two_memories(self) -> bool:
        """Whether the critic has a memory of its own."""
        return self.config.critic_memory == "separate"

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder(self.config)

    @cached_property
    def _actor(self) -> Head:
        outputs = self.config.action.num_inputs
        if isinstance(self.config.action, Box):
            outputs //= 2
        return Head(self.config.actor_torso, self.config.activation, outputs, scale=0.01)

    @cached_property
    def _critic(self) -> Head:
        return Head(self.config.critic_torso, self.config.activation, 1, scale=1.0)

    @property
    def state_shape(self) -> Any:
        """The state's pytree with every leaf replaced by its shape without the batch axis."""
        shape = self.memory.state_shape
        return (shape, shape) if self.has_two_memories else shape

    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first step: zeros, leaves ``(batch_size, ...)``."""
        state = self.memory.initial_state(batch_size)
        return (state, self.memory.initial_state(batch_size)) if self.has_two_memories else state

    def init(self, key: Array) -> dict[str, Any]:
        """Make parameters, compiled as one program."""
        params: dict[str, Any] = self._initialiser.run(key)
        return params

    @cached_property
    def _initialiser(self) -> "_Initialiser":
        return _Initialiser.of(self.config)

    def _init(self, key: Array) -> dict[str, Any]:
        keys = iter(jax.random.split(key, 5))
        obs = jnp.zeros((1, *self.config.obs_shape), jnp.float32)
        params: dict[str, Any] = {"encoder": self._encoder.init(next(keys), obs).get("params", {})}
        encoded = self._encode(params, obs)
        params["memory"] = self.memory.init(next(keys), encoded.shape[-1])
        if self.has_two_memories:
            params["critic_memory"] = self.memory.init(next(keys), encoded.shape[-1])
        memorised = jnp.zeros((1, self.memory.d_model), jnp.float32)
        critic_input = encoded if self.config.critic_memory == "none" else memorised
        params["actor"] = self._actor.init(next(keys), memorised)["params"]
        params["critic"] = self._critic.init(next(keys), critic_input)["params"]
        if isinstance(self.config.action, Box):
            params["log_std"] = jnp.zeros(len(self.config.action.low), jnp.float32)
        return params

    def param_shapes(self) -> dict[str, Any]:
        """Return ``init``'s result as ``jax.ShapeDtypeStruct`` leaves, computing nothing."""
        key = jax.random.key(0)

        def width(module: nn.Module, *shape: int) -> tuple[Any, int]:
            output, variables = jax.eval_shape(lambda x: module.init_with_output(key, x), _float32(*shape))
            return variables.get("params", {}), output.shape[-1]

        config, shapes = self.config, dict[str, Any]()
        shapes["encoder"], encoded = width(self._encoder, 1, *config.obs_shape)
        shapes["memory"] = self.memory.param_shapes(encoded)
        if self.has_two_memories:
            shapes["critic_memory"] = shapes["memory"]
        memorised = self.memory.d_model
        critic_input = encoded if config.critic_memory == "none" else memorised
        shapes["actor"], _ = width(self._actor, 1, memorised)
        shapes["critic"], _ = width(self._critic, 1, critic_input)
        if isinstance(config.action, Box):
            shapes["log_std"] = _float32(len(config.action.low))
        return shapes

    def apply(
        self, params: Params, state: State, obs: Array, episode_starts: Array
    ) -> tuple[State, Array, Array]:
        """Run over a sequence.

        Args:
            params: from ``init``.
            state: what the first step carries in.
            obs: ``(T, B, *obs_shape)``.
            episode_starts: ``(T, B)`` bool.

        Returns:
            The state after the last step, the distribution's inputs ``(T, B, K)`` (see ``distributions``),
            values ``(T, B)``.

        Raises:
            TypeError, ValueError: an argument's dtype or shape does not fit; one line that names it.

        """
        if obs.ndim < 2 or obs.shape[2:] != self.config.obs_shape:
            expected = ", ".join(map(str, ("time", "batch", *self.config.obs_shape)))
            raise ValueError(f"obs: got shape {obs.shape}, expected ({expected})")
        encoded = self._encode(params, obs.reshape(-1, *obs.shape[2:])).reshape(*obs.shape[:2], -1)
        actor_state, critic_state = self._split(state)
        actor_state, memorised = self.memory.apply(params["memory"], actor_state, encoded, episode_starts)
        if self.has_two_memories:
            critic_state, for_critic = self.memory.apply(
                params["critic_memory"], critic_state, encoded, episode_starts
            )
        else:
            for_critic = self._critic_input(encoded, memorised)
        return self._join(actor_state, critic_state), *self._heads(params, memorised, for_critic)

    def prepare(self, params: Params) -> PreparedActorCritic:
        """Do once what every step would repeat; the result serves ``step`` until the parameters change."""
        names = ("memory", "critic_memory") if self.has_two_memories else ("memory",)
        rest = {name: leaf for name, leaf in params.items() if name not in names}
        return PreparedActorCritic(rest, tuple(self.memory.prepare(params[name]) for name in names))

    def step(
        self, prepared: PreparedActorCritic, state: State, obs: Array, episode_starts: Array
    ) -> tuple[State, Array, Array]:
        """Run over one step: ``obs (B, *obs_shape)``, ``episode_starts (B,)`` bool.

        Returns:
            The next state, the distribution's inputs ``(B, K)``, values ``(B,)``.

        """
        encoded = self._encode(prepared.params, obs)
        actor_state, critic_state = self._split(state)
        actor_state, memorised = self.memory.step(prepared.memories[0], actor_state, encoded, episode_starts)
        if self.has_two_memories:
            critic_state, for_critic = self.memory.step(
                prepared.memories[1], critic_state, encoded, episode_starts
            )
        else:
            for_critic = self._critic_input(encoded, memorised)
        return self._join(actor_state, critic_state), *self._heads(prepared.params, memorised, for_critic)

    def _split(self, state: State) -> tuple[State, State]:
        return state if self.has_two_memories else (state, None)

    def _join(self, actor_state: State, critic_state: State) -> State:
        return (actor_state, critic_state) if self.has_two_memories else actor_state

    def _encode(self, params: Params, obs: Array) -> Array:
        return jnp.asarray(self._encoder.apply({"params": params["encoder"]}, obs))

    def _critic_input(self, encoded: Array, memorised: Array) -> Array:
        if self.config.critic_memory == "none":
            return encoded
        return memorised if self.config.critic_memory == "shared" else lax.stop_gradient(memorised)

    def _heads(self, params: Params, memorised: Array, for_critic: Array) -> tuple[Array, Array]:
        inputs = jnp.asarray(self._actor.apply({"params": params["actor"]}, memorised))
        if isinstance(self.config.action, Box):
            log_std = jnp.broadcast_to(params["log_std"], inputs.shape)
            inputs = jnp.concatenate([inputs, log_std], axis=-1)
        value = jnp.asarray(self._critic.apply({"params": params["critic"]}, for_critic))
        return inputs, value[..., 0]


def _float32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
