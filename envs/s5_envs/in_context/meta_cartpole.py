"""MetaCartPole-v0: Lu et al. (2023), "Structured State Space Models for In-Context RL", section 4.3."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from s5_envs import spaces
from s5_envs.in_context.projection import RandomProjection
from s5_envs.in_context.trials import Trials
from s5_envs.interface import Step, jitted
from s5_envs.popgym import PositionOnlyCartPole
from s5_envs.wrappers import Wrapper


def meta_cartpole(num_trials: int = 16, max_episode_length: int = 200, obs_dim: int = 4) -> MetaCartPole:
    """Build Meta-CartPole as the paper's released code has it (popjaxrl, ``meta_cartpole.py``).

    A task is 16 trials of a CartPole that shows position and angle, behind a projection to 4 numbers,
    orthogonal times sqrt(2), that stays the task's, as does the state in which each trial begins. Actions
    are not projected, the reward, 1/200 at every step, is not shown. The paper evaluates with 32 trials.

    Args:
        num_trials: trials of a task.
        max_episode_length: a trial's time limit in steps.
        obs_dim: numbers to which position and angle are projected.
    """
    trials = Trials(PositionOnlyCartPole(max_episode_length), num_trials, same_start=True)
    return MetaCartPole(RandomProjection(trials, obs_dim=obs_dim, obs_scale=math.sqrt(2.0)))


@dataclass(frozen=True)
class MetaCartPole(Wrapper):
    """Appends what the released Meta-CartPole shows beside the projection; ``meta_cartpole`` builds the
    whole.

    Observation, ``(obs_dim + 3,)`` float32: the projection; the previous action as a number; 1 where the
    last step ended a trial and the next one began; 1 on a task's first observation, where action and trial's
    end are 0. Action: ``Discrete(2)``, push left or right. Reward: 1 / max_episode_length at every step, so
    that a trial's return is at most 1.
    """

    @property
    def name(self) -> str:
        """The task's name."""
        return "MetaCartPole"

    def observation_space(self, params: Any = None) -> spaces.Box:
        """Return the space of projection, action and the two flags."""
        parts = [spaces.encoded_space(super().observation_space(params)), spaces.Box(0.0, 1.0, (3,))]
        return spaces.concatenated(parts)

    @jitted
    def reset(self, key: jax.Array, params: Any = None) -> tuple[jax.Array, Any]:
        """Begin a task."""
        obs, state = self.env.reset(key, params)
        return _append(obs, 0, False, True), state

    @jitted
    def step(self, key: jax.Array, state: Any, action: Any, params: Any = None) -> Step:
        """Take one step."""
        obs, state, reward, terminated, truncated, info = self.env.step(key, state, action, params)
        ended, done = info["trial_ended"], terminated | truncated
        begun = ended & ~done
        final = _append(info["final_observation"], action, begun, False)
        obs = _append(obs, jnp.where(done, 0, action), begun, done)
        return obs, state, reward, terminated, truncated, {**info, "final_observation": final}


def _append(obs: jax.Array, action: Any, trial_ended: Any, is_first: Any) -> jax.Array:
    shown = [jnp.asarray(x, jnp.float32) for x in (action, trial_ended, is_first)]
    return jnp.concatenate([obs, jnp.stack(shown)])
