"""Where pickles find what is now in `s5_adapters.core.network.actor_critic`."""

from s5_adapters.core.network.actor_critic import ActorCriticConfig as ActorCriticConfig
