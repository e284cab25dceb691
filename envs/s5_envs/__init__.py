"""JAX environments that need memory: POPGym, proven against its reference, with the gymnax 1.x interface."""

from s5_envs.adapt import adapt
from s5_envs.base import Environment, EnvParams, EnvState
from s5_envs.gymnasium import GymnaxEnv, GymnaxVectorEnv
from s5_envs.in_context import (
    Family,
    MultiTask,
    PreviousReward,
    RandomProjection,
    ScaleReward,
    Symlog,
    TrialEnd,
    Trials,
)
from s5_envs.masks import ActionMask, SplitActionMask
from s5_envs.registration import gymnax_ids, make, popgym_ids, register, registered_ids
from s5_envs.spaces import MultiDiscrete
from s5_envs.wrappers import (
    EpisodeStatistics,
    FlattenAction,
    FlattenObservation,
    FrameStack,
    PreviousAction,
    Wrapper,
)

__all__ = [
    "ActionMask",
    "EnvParams",
    "EnvState",
    "Environment",
    "EpisodeStatistics",
    "Family",
    "FlattenAction",
    "FlattenObservation",
    "FrameStack",
    "GymnaxEnv",
    "GymnaxVectorEnv",
    "MultiDiscrete",
    "MultiTask",
    "PreviousAction",
    "PreviousReward",
    "RandomProjection",
    "ScaleReward",
    "SplitActionMask",
    "Symlog",
    "TrialEnd",
    "Trials",
    "Wrapper",
    "adapt",
    "gymnax_ids",
    "make",
    "popgym_ids",
    "register",
    "registered_ids",
]
