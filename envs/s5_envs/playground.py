"""MuJoCo Playground's DeepMind Control tasks (``pip install 's5-adapters[control]'``), in JAX's MuJoCo."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from s5_envs import spaces
from s5_envs.adapt import Adapted, narrow
from s5_envs.base import EnvParams
from s5_envs.dtypes import like
from s5_envs.extras import needed_by
from s5_envs.in_context.renewal import renew
from s5_envs.interface import Step, jitted


@struct.dataclass
class PlaygroundState:
    """State of ``Playground``."""

    task: Any  # Playground's own
    time: jax.Array  # () int32, steps taken in this episode


@dataclass(frozen=True)
class Playground:
    """A task of Playground's DeepMind Control suite behind gymnax 1.x's interface.

    An episode ends, truncated, at the time limit, 1,000 steps as in the suite; it terminates where the
    simulation is no longer finite. In a batch only those environments are reset whose episode has ended.

    Args:
        task: its name there, as ``CartpoleSwingup``.
    """

    task: str

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task

    @property
    def default_params(self) -> EnvParams:
        """The suite's time limit."""
        return EnvParams(max_steps_in_episode=_loaded(self.task)._config.episode_length)

    @property
    def num_actions(self) -> int:
        """The number of an action's components."""
        return int(_loaded(self.task).action_size)

    def action_space(self, params: Any = None) -> spaces.Box:
        """Return the Box of the actuators' ranges."""
        model = _loaded(self.task).mj_model
        limited = model.actuator_ctrllimited.astype(bool)
        low, high = np.where(limited, model.actuator_ctrlrange.T, [[-1.0], [1.0]]).astype(np.float32)
        return spaces.concatenated([spaces.Box(low, high, low.shape)])

    def observation_space(self, params: Any = None) -> spaces.Box:
        """Return a flat Box without bounds."""
        return spaces.Box(-np.inf, np.inf, (_loaded(self.task).observation_size,))

    @jitted
    def reset(self, key: jax.Array, params: Any = None) -> tuple[jax.Array, PlaygroundState]:
        """Begin an episode."""
        state = _begun(self.task, key)
        return state.task.obs, state

    @jitted
    def step(self, key: jax.Array, state: PlaygroundState, action: Any, params: Any = None) -> Step:
        """Take one step, with automatic reset."""
        params = self.default_params if params is None else params
        after = _loaded(self.task).step(state.task, jnp.asarray(action, jnp.float32))
        final = jax.tree.map(like, PlaygroundState(after, state.time + 1), state)
        terminated = final.task.done > 0
        truncated = ~terminated & (final.time >= params.max_steps_in_episode)
        info = {"terminated": terminated, "truncated": truncated, "final_observation": final.task.obs}
        begun = renew(functools.partial(_begun, self.task), terminated | truncated, key, final)
        # What is not finite pays nothing: one such reward would spoil a whole batch.
        reward = jnp.where(terminated, 0.0, after.reward)
        return begun.task.obs, begun, reward, terminated, truncated, info


def suite(what: str) -> Any:
    """Import Playground's DeepMind Control suite.

    Args:
        what: what needs it, for the message.

    Raises:
        ValueError: one line, where Playground is not installed.
    """
    with needed_by(what, "control"):
        from mujoco_playground import dm_control_suite
    return dm_control_suite


def make(name: str, **kwargs: Any) -> tuple[Adapted, EnvParams]:
    """Build a task: ``env, params``.

    Raises:
        ValueError: one line, where Playground is not installed, for an unknown task and any argument but
            ``max_steps_in_episode``.
    """
    known = suite(f"playground/{name}").ALL_ENVS
    if name not in known:
        raise ValueError(f"unknown environment 'playground/{name}'; expected one of {', '.join(known)}")
    env = Adapted(Playground(name))
    params: Any = env.default_params
    unknown = sorted(set(kwargs) - {"max_steps_in_episode"})
    if unknown:
        raise ValueError(f"playground/{name} has no argument {unknown[0]!r}; it takes: max_steps_in_episode")
    return env, params.replace(**kwargs)


@functools.cache
def _loaded(task: str) -> Any:
    with narrow():  # its arrays are constants of what is compiled
        return suite(task).load(task, config_overrides={"impl": "jax"})


def _begun(task: str, key: jax.Array) -> PlaygroundState:
    begun = _loaded(task).reset(key)
    return PlaygroundState(jax.tree.map(jnp.asarray, begun), jnp.int32(0))
