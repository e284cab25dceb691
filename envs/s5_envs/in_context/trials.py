"""Several trials at one task in one episode, as an agent needs them that learns from its own attempts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from s5_envs.in_context.projection import RandomProjection
from s5_envs.interface import Step, jitted
from s5_envs.wrappers import StatefulWrapper, layers


@struct.dataclass
class TrialsState:
    """State of ``Trials``."""

    env_state: Any  # the wrapped environment's
    first: Any  # (observation, state) that each trial of this task begins with; None where trials begin anew
    trial: jax.Array  # () int32, trials of this task that are over
    trial_return: jax.Array  # () float32, of the trial under way


@dataclass(frozen=True)
class Trials(StatefulWrapper):
    """Makes ``num_trials`` episodes of the wrapped environment, its trials, one episode: a task.

    Within a task a trial's end is an ordinary step: neither ``terminated`` nor ``truncated``, so that a
    memory is kept. The observation is the next trial's first, and so is ``info["final_observation"]``,
    because the episode goes on there. The last trial's end is the task's, with that trial's own flags: its
    ``final_observation`` is what the step itself led to. One trial is therefore the wrapped environment as
    it was.

    ``info["trial"]`` (int32, from 0) is the trial that the step belongs to, ``info["trial_return"]``
    (float32) its return up to and including the step, and ``info["trial_ended"]`` (bool) whether the step
    ended it. ``max_steps_in_episode`` in the parameters is a trial's time limit.

    Args:
        env: any gymnax 1.x environment, wrapped or not. What is to stay the same over a task goes around
            ``Trials``, as ``RandomProjection`` does.
        num_trials: trials of a task.
        same_start: begin each trial of a task in the state that its first one began in; else each begins as
            an episode of the wrapped environment does.

    Raises:
        ValueError: ``num_trials`` is no positive integer; trials that begin anew around a
            ``RandomProjection``, each of which would be behind a projection of its own.
    """

    num_trials: int = 16
    same_start: bool = True

    def __post_init__(self) -> None:
        """Check the configuration."""
        if not isinstance(self.num_trials, int) or self.num_trials < 1:
            raise ValueError(f"Trials: num_trials must be a positive integer, got {self.num_trials!r}")
        is_projected = any(isinstance(layer, RandomProjection) for layer in layers(self.env))
        if is_projected and not self.same_start:
            raise ValueError(
                "Trials: got an environment in RandomProjection and same_start=False, so that every "
                "trial would have a projection of its own; expected RandomProjection(Trials(env))"
            )

    @jitted
    def reset(self, key: jax.Array, params: Any = None) -> tuple[Any, TrialsState]:
        """Begin a task with its first trial."""
        obs, env_state = self.env.reset(key, params)
        first = (obs, env_state) if self.same_start else None
        return obs, TrialsState(env_state, first, jnp.int32(0), jnp.float32(0))

    @jitted
    def step(self, key: jax.Array, state: TrialsState, action: Any, params: Any = None) -> Step:
        """Take one step; a trial's end begins the next one, the last trial's end the next task."""
        obs, env_state, reward, terminated, truncated, info = self.env.step(
            key, state.env_state, action, params
        )
        ended = jnp.asarray(terminated | truncated, bool)
        is_last = state.trial == self.num_trials - 1
        first = state.first
        if self.same_start:
            # What the wrapped environment begins after the last trial is the next task's beginning.
            obs, env_state = _choose(ended & ~is_last, first, (obs, env_state))
            first = _choose(ended & is_last, (obs, env_state), first)
        trial_return = state.trial_return + jnp.asarray(reward, jnp.float32)
        trial = state.trial + ended.astype(jnp.int32)
        info = {
            **info,
            "trial": state.trial,
            "trial_return": trial_return,
            "trial_ended": ended,
            "terminated": terminated & is_last,
            "truncated": truncated & is_last,
            "final_observation": _choose(ended & ~is_last, obs, info["final_observation"]),
        }
        state = TrialsState(
            env_state=env_state,
            first=first,
            trial=jnp.where(trial == self.num_trials, 0, trial),
            trial_return=jnp.where(ended, 0.0, trial_return),
        )
        return obs, state, reward, terminated & is_last, truncated & is_last, info


def _choose(condition: jax.Array, first: Any, second: Any) -> Any:
    """Take ``first`` where the condition holds, in the dtypes of ``second``."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b).astype(jnp.asarray(b).dtype), first, second)
