"""RLlib: the network as an RLModule and as an old-stack model, its configuration, the environments.

Importing this registers the old API stack's custom model `"s5"`, for as long as Ray has that stack.
"""

from importlib.util import find_spec

from s5_adapters.rllib._config import S5PPOConfig
from s5_adapters.rllib._envs import check_autoreset, register_envs
from s5_adapters.rllib._module import S5RLModule
from s5_adapters.rllib._process import settle_jax

__all__ = ["S5PPOConfig", "S5RLModule", "check_autoreset", "register_envs"]

settle_jax()
if find_spec("ray.rllib.models.torch") is not None:
    from s5_adapters.rllib import _model_v2 as _model_v2
