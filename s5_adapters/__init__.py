"""A resettable S5 memory for reinforcement learning, for Stable-Baselines3, RLlib and a jitted PPO trainer.

What most programs need can be imported from here, and is loaded when it is first asked for: importing
`s5_adapters` by itself costs nothing, and `s5_adapters.core` needs JAX, Flax and NumPy alone.
"""

from typing import TYPE_CHECKING

from s5_adapters.lazy import lazy_exports

if TYPE_CHECKING:
    from s5_adapters.core import ActorCritic as ActorCritic
    from s5_adapters.core import ActorCriticConfig as ActorCriticConfig
    from s5_adapters.core import Box as Box
    from s5_adapters.core import Discrete as Discrete
    from s5_adapters.core import Memory as Memory
    from s5_adapters.core import MultiDiscrete as MultiDiscrete
    from s5_adapters.core import linear_recurrence as linear_recurrence
    from s5_adapters.core import make_memory as make_memory
    from s5_adapters.core import register_memory as register_memory
    from s5_adapters.core.files.weights import Policy as Policy
    from s5_adapters.core.files.weights import load_policy as load_policy
    from s5_adapters.core.files.weights import save_policy as save_policy
    from s5_adapters.purejax import PPOConfig as PPOConfig
    from s5_adapters.purejax import Trainer as Trainer
    from s5_adapters.purejax import make_train as make_train

__version__ = "0.1.0"

_HOMES = {
    "ActorCritic": "s5_adapters.core",
    "ActorCriticConfig": "s5_adapters.core",
    "Box": "s5_adapters.core",
    "Discrete": "s5_adapters.core",
    "Memory": "s5_adapters.core",
    "MultiDiscrete": "s5_adapters.core",
    "linear_recurrence": "s5_adapters.core",
    "make_memory": "s5_adapters.core",
    "register_memory": "s5_adapters.core",
    "Policy": "s5_adapters.core.files.weights",
    "load_policy": "s5_adapters.core.files.weights",
    "save_policy": "s5_adapters.core.files.weights",
    "PPOConfig": "s5_adapters.purejax",
    "Trainer": "s5_adapters.purejax",
    "make_train": "s5_adapters.purejax",
}
__all__ = ["__version__", *_HOMES]


__getattr__ = lazy_exports(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
