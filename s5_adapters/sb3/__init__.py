"""S5 and other memories in Stable-Baselines3: `RecurrentPPO("S5Policy", env)`.

Importing this registers `S5Policy`, `CnnS5Policy` and `MultiInputS5Policy` with sb3-contrib's `RecurrentPPO`.
"""

from sb3_contrib import RecurrentPPO

from s5_adapters.sb3.maskable import (
    MaskableCnnS5Policy,
    MaskableMultiInputS5Policy,
    MaskableS5Policy,
    S5MaskableRecurrentPPO,
)
from s5_adapters.sb3.policies import CnnS5Policy, MultiInputS5Policy, S5Policy
from s5_adapters.sb3.ppo import S5RecurrentPPO
from s5_adapters.sb3.vec_env import JaxVecEnv

__all__ = [
    "CnnS5Policy",
    "JaxVecEnv",
    "MaskableCnnS5Policy",
    "MaskableMultiInputS5Policy",
    "MaskableS5Policy",
    "MultiInputS5Policy",
    "S5MaskableRecurrentPPO",
    "S5Policy",
    "S5RecurrentPPO",
]

RecurrentPPO.policy_aliases = dict(S5RecurrentPPO.policy_aliases)
