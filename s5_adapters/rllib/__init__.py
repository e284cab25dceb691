"""RLlib: the network as an RLModule and as an old-stack model, its configuration, the environments.

Importing this registers the old API stack's custom model `"s5"`, for as long as Ray has that stack. In Ray's
workers, and nowhere else, it also makes JAX's settings (see `settle_process`).
"""

from importlib.util import find_spec

from s5_adapters.rllib._config import S5PPOConfig
from s5_adapters.rllib._envs import check_autoreset, register_envs
from s5_adapters.rllib._learner import S5PPOTorchLearner
from s5_adapters.rllib._module import S5RLModule
from s5_adapters.rllib._process import is_worker, settle_process

__all__ = ["S5PPOConfig", "S5PPOTorchLearner", "S5RLModule", "check_autoreset", "register_envs"]

if is_worker():  # what Ray unpickles next may hold arrays of JAX's
    settle_process()
if find_spec("ray.rllib.models.torch") is not None:
    from s5_adapters.rllib import _model_v2 as _model_v2
