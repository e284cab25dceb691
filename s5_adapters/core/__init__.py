"""The model, in JAX alone: the resettable recurrence, S5 and other memories, the actor-critic network."""

from s5_adapters.core.memories.memory import Memory, make_memory, memory_names, register_memory
from s5_adapters.core.network.actor_critic import ActorCritic
from s5_adapters.core.network.config import ActorCriticConfig
from s5_adapters.core.network.distributions import (
    ActionSpec,
    Box,
    Discrete,
    Distribution,
    MultiDiscrete,
    distribution,
)
from s5_adapters.core.network.masks import MaskedObservation
from s5_adapters.core.recurrence.scan import linear_recurrence

__all__ = [
    "ActionSpec",
    "ActorCritic",
    "ActorCriticConfig",
    "Box",
    "Discrete",
    "Distribution",
    "MaskedObservation",
    "Memory",
    "MultiDiscrete",
    "distribution",
    "linear_recurrence",
    "make_memory",
    "memory_names",
    "register_memory",
]
