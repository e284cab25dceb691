"""An environment of one's own in the jitted trainer, watched, kept and evaluated by `Trainer`.

The cue is shown once, at the first step; after a delay the agent must name it. Without a memory the mean
return is 1 / 4.

    python examples/purejax_custom_environment.py
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

import s5_envs
from s5_adapters.purejax import PPOConfig, Trainer
from s5_adapters.purejax.progress import make_reporter

CUES = 4


@struct.dataclass
class State:
    """One episode."""

    cue: jax.Array  # () int32
    time: jax.Array  # () int32, steps taken


@dataclass(frozen=True)
class DelayedCue(environment.Environment):
    """A cue to remember: a gymnax 1.x environment, as a frozen dataclass so that `delay` is a setting."""

    delay: int = 10

    @property
    def default_params(self) -> environment.EnvParams:
        """The time limit, which is never reached: the episode terminates first."""
        return environment.EnvParams(max_steps_in_episode=self.delay + 2)

    def reset_env(self, key: jax.Array, params: Any) -> tuple[jax.Array, State]:
        """Draw a cue."""
        state = State(cue=jax.random.randint(key, (), 0, CUES), time=jnp.int32(0))
        return self.get_obs(state), state

    def step_env(self, key: jax.Array, state: State, action: jax.Array, params: Any) -> tuple[Any, ...]:
        """Pay 1 for naming the cue when it is asked for; then the episode ends."""
        asked = state.time == self.delay
        reward = jnp.where(asked & (action == state.cue), 1.0, 0.0)
        state = state.replace(time=state.time + 1)
        return self.get_obs(state), state, reward, asked, {}

    def get_obs(self, state: State, params: Any = None, key: Any = None) -> jax.Array:
        """Return the cue one-hot at the first step, and whether it is asked for."""
        shown = jax.nn.one_hot(state.cue, CUES) * (state.time == 0)
        return jnp.append(shown, (state.time == self.delay).astype(jnp.float32))

    def action_space(self, params: Any = None) -> spaces.Discrete:
        """Return one action per cue."""
        return spaces.Discrete(CUES)

    def observation_space(self, params: Any = None) -> spaces.Box:
        """Return the space of ``get_obs``."""
        return spaces.Box(0.0, 1.0, (CUES + 1,))


s5_envs.register("DelayedCue", DelayedCue)

config = PPOConfig(env_id="DelayedCue", env_kwargs={"delay": 20}, total_steps=200_000)
trainer = Trainer(config, seed=0, reporter=make_reporter())
trainer.run()
evaluation = trainer.evaluate()
print(f"mean return {evaluation.mean:.3f} ± {evaluation.standard_error:.3f}; by guessing: {1 / CUES}")
