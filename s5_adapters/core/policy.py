"""Where pickles find what is now in `s5_adapters.core.network.config`."""

from s5_adapters.core.network.config import ActorCriticConfig as ActorCriticConfig
