"""The network's architecture as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from flax import linen as nn

from s5_adapters.core.checks import boolean, integer, integers, one_of
from s5_adapters.core.memories.memory import Memory, make_memory
from s5_adapters.core.network.distributions import ActionSpec, Box

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
        action_mask: every observation comes with a mask of the allowed actions (see ``MaskedObservation``).
            No parameter depends on it.

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
    action_mask: bool = False

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
            "action_mask": boolean("action_mask", self.action_mask),
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
        if self.action_mask and isinstance(self.action, Box):
            raise ValueError(f"action_mask: got True with {self.action}, expected discrete actions")

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
