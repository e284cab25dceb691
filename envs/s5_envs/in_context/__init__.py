"""In-context reinforcement learning: tasks that an agent must work out while it acts in them."""

from s5_envs.in_context.inputs import PreviousReward, ScaleReward, TrialEnd
from s5_envs.in_context.meta_cartpole import meta_cartpole
from s5_envs.in_context.meta_control import meta_control
from s5_envs.in_context.meta_dmc import meta_dmc
from s5_envs.in_context.multi_task import Family, MultiTask
from s5_envs.in_context.projection import RandomProjection
from s5_envs.in_context.symlog import Symlog
from s5_envs.in_context.trials import Trials

__all__ = [
    "Family",
    "MultiTask",
    "PreviousReward",
    "RandomProjection",
    "ScaleReward",
    "Symlog",
    "TrialEnd",
    "Trials",
    "meta_cartpole",
    "meta_control",
    "meta_dmc",
]
