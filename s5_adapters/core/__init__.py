"""The model, in JAX alone: the resettable recurrence, S5 and its rivals, the actor-critic network."""

from s5_adapters.core.distributions import (
    ActionSpec,
    Box,
    Discrete,
    Distribution,
    MultiDiscrete,
    distribution,
)
from s5_adapters.core.memory import Memory, make_memory, memory_names, register_memory
from s5_adapters.core.policy import ActorCritic, ActorCriticConfig
from s5_adapters.core.scan import linear_recurrence

__all__ = [
    "ActionSpec",
    "ActorCritic",
    "ActorCriticConfig",
    "Box",
    "Discrete",
    "Distribution",
    "Memory",
    "MultiDiscrete",
    "distribution",
    "linear_recurrence",
    "make_memory",
    "memory_names",
    "register_memory",
]
