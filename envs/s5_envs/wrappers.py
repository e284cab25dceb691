"""Wrappers for gymnax 1.x environments that stay right across automatic resets.

A wrapper is equal and hashable by its configuration when the environment it holds is. It follows the
automatic reset inside ``step``: where an episode ended, the returned observation is the next episode's first,
so what a wrapper adds to it must be the next episode's too, while ``info["final_observation"]`` is given
what belongs to the step just taken (the action, no first-step flag, the same statistics).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from s5_envs import spaces
from s5_envs.base import RenderMode
from s5_envs.interface import AnyEnvironment, PyTree, Step, jitted


@dataclass(frozen=True)
class Wrapper:
    """Passes everything through; subclasses override ``reset``, ``step`` and the spaces.

    Args:
        env: any gymnax 1.x environment, or another wrapper.
    """

    env: AnyEnvironment

    @property
    def unwrapped(self) -> Any:
        """The innermost environment, of whatever class."""
        return getattr(self.env, "unwrapped", self.env)

    def unwrapped_state(self, state: PyTree) -> PyTree:
        """Return the innermost environment's state within this wrapper's ``state``."""
        return self.env.unwrapped_state(state) if isinstance(self.env, Wrapper) else state

    def unwrapped_action(self, action: PyTree, state: PyTree) -> PyTree:
        """Return what this wrapper, in ``state``, makes of ``action`` for the innermost environment."""
        return self.env.unwrapped_action(action, state) if isinstance(self.env, Wrapper) else action

    @property
    def name(self) -> str:
        """The innermost environment's name."""
        return self.env.name

    @property
    def default_params(self) -> PyTree:
        """The innermost environment's parameters."""
        return self.env.default_params

    @property
    def num_actions(self) -> int:
        """The number of discrete actions, or of an action's components."""
        return self.env.num_actions

    def action_space(self, params: PyTree = None) -> spaces.Space:
        """Return the space of actions."""
        return self.env.action_space(self.default_params if params is None else params)

    def observation_space(self, params: PyTree = None) -> spaces.Space:
        """Return the space of observations."""
        return self.env.observation_space(self.default_params if params is None else params)

    def _static_spaces(self) -> tuple[spaces.Space, spaces.Space]:
        """Return the wrapped environment's observation and action space for the default parameters.

        What kind of space and how wide is the same for all parameters, and these are known while tracing.
        """
        with jax.ensure_compile_time_eval():
            params = self.env.default_params
            return self.env.observation_space(params), self.env.action_space(params)

    def reset(self, key: jax.Array, params: PyTree = None) -> tuple[PyTree, PyTree]:
        """Begin an episode: ``obs, state``."""
        return self.env.reset(key, params)

    def step(self, key: jax.Array, state: PyTree, action: PyTree, params: PyTree = None) -> Step:
        """Take one step, with automatic reset: ``obs, state, reward, terminated, truncated, info``."""
        return self.env.step(key, state, action, params)

    def render(self, state: PyTree, params: PyTree = None, mode: RenderMode = "ansi") -> str | np.ndarray:
        """Draw one (unbatched) state, see ``Environment.render``."""
        picture: str | np.ndarray = self.unwrapped.render(self.unwrapped_state(state), params, mode)
        return picture


def layers(env: AnyEnvironment) -> Iterator[AnyEnvironment]:
    """Yield an environment and what it wraps, from the outermost wrapper to the innermost environment."""
    yield env
    while isinstance(env, Wrapper):
        env = env.env
        yield env


@dataclass(frozen=True)
class StatefulWrapper(Wrapper):
    """A wrapper whose state holds the wrapped environment's as ``env_state``."""

    def unwrapped_state(self, state: Any) -> Any:
        """Return the innermost environment's state."""
        return super().unwrapped_state(state.env_state)

    def unwrapped_action(self, action: Any, state: Any) -> Any:
        """Return what the innermost environment is given."""
        return super().unwrapped_action(action, state.env_state)


@dataclass(frozen=True)
class FlattenObservation(Wrapper):
    """Observations as flat float32: discrete parts one-hot and concatenated, boxes ravelled."""

    def observation_space(self, params: PyTree = None) -> spaces.Box:
        """Return a flat Box."""
        return spaces.encoded_space(super().observation_space(params))

    def reset(self, key: jax.Array, params: PyTree = None) -> tuple[jax.Array, PyTree]:
        """Begin an episode; obs is ``(n,)`` float32."""
        obs, state = self.env.reset(key, params)
        return spaces.encode(self._static_spaces()[0], obs), state

    def step(self, key: jax.Array, state: PyTree, action: PyTree, params: PyTree = None) -> Step:
        """Take one step; obs is ``(n,)`` float32."""
        space, _ = self._static_spaces()
        obs, state, reward, terminated, truncated, info = self.env.step(key, state, action, params)
        info = {**info, "final_observation": spaces.encode(space, info["final_observation"])}
        return spaces.encode(space, obs), state, reward, terminated, truncated, info


@dataclass(frozen=True)
class PreviousAction(Wrapper):
    """Appends the action that led to the observation and a first-step flag.

    The observation becomes ``[obs, previous action, flag]``, flat float32: discrete parts one-hot (a Box
    action as it is), the flag one-hot of 2, ``(0, 1)`` on an episode's first observation and ``(1, 0)``
    after. The previous action of a first observation is the null action: 0 (or a Box's lower bound where 0
    lies outside). This is POPGym's ``Flatten(Antialias(PreviousAction(env)))``.

    Args:
        env: any gymnax 1.x environment with Discrete, MultiDiscrete or Box spaces.
        first_step_flag: append the flag.
    """

    first_step_flag: bool = True

    def observation_space(self, params: PyTree = None) -> spaces.Box:
        """Return the flat Box of observation, action and flag."""
        parts = [super().observation_space(params), self.action_space(params)]
        if self.first_step_flag:
            parts.append(spaces.Discrete(2))
        return spaces.concatenated([spaces.encoded_space(part) for part in parts])

    def _append(self, obs: PyTree, action: PyTree, first: jax.Array) -> jax.Array:
        obs_space, action_space = self._static_spaces()
        parts = [spaces.encode(obs_space, obs), spaces.encode(action_space, action)]
        if self.first_step_flag:
            parts.append(jnp.stack([~first, first]).astype(jnp.float32))
        return jnp.concatenate(parts)

    @property
    def _null_action(self) -> jax.Array:
        return spaces.null_value(self._static_spaces()[1])

    def first_obs(self, obs: PyTree) -> jax.Array:
        """Return an episode's first observation: ``obs`` with the null action and the flag set."""
        return self._append(obs, self._null_action, jnp.array(True))

    @jitted
    def reset(self, key: jax.Array, params: PyTree = None) -> tuple[jax.Array, PyTree]:
        """Begin an episode with the null action and the flag set."""
        obs, state = self.env.reset(key, params)
        return self.first_obs(obs), state

    @jitted
    def step(self, key: jax.Array, state: PyTree, action: PyTree, params: PyTree = None) -> Step:
        """Take one step; an automatic reset brings the null action and the flag back."""
        obs, state, reward, terminated, truncated, info = self.env.step(key, state, action, params)
        done, null = terminated | truncated, self._null_action
        previous = jnp.where(done, null, jnp.asarray(action, null.dtype).reshape(null.shape))
        info = {
            **info,
            "final_observation": self._append(info["final_observation"], action, jnp.array(False)),
        }
        return self._append(obs, previous, done), state, reward, terminated, truncated, info


@dataclass(frozen=True)
class FlattenAction(Wrapper):
    """One discrete action for several: ``action = a_0 * n_1 * n_2 ... + a_1 * n_2 ... + ...`` (row-major).

    Args:
        env: an environment with a MultiDiscrete action space.
    """

    def __post_init__(self) -> None:
        """Check that there is something to flatten."""
        self._choices()

    def _choices(self, params: PyTree = None) -> spaces.MultiDiscrete:
        space = super().action_space(params)
        if not isinstance(space, spaces.MultiDiscrete):
            raise ValueError(f"FlattenAction: {self.env.name} has actions {space!r}; expected MultiDiscrete")
        return space

    @property
    def num_actions(self) -> int:
        """The number of combined actions."""
        return self._choices().n

    def action_space(self, params: PyTree = None) -> spaces.Discrete:
        """Return the combined choices."""
        return spaces.Discrete(self._choices(params).n)

    def step(self, key: jax.Array, state: PyTree, action: PyTree, params: PyTree = None) -> Step:
        """Take one step with the action's components."""
        return self.env.step(key, state, self._components(action), params)

    def unwrapped_action(self, action: PyTree, state: PyTree) -> PyTree:
        """Return what the innermost environment is given."""
        return super().unwrapped_action(self._components(action), state)

    def _components(self, action: PyTree) -> jax.Array:
        nvec = self._choices().nvec
        return jnp.stack(jnp.unravel_index(jnp.asarray(action), nvec)).astype(jnp.int32)


@struct.dataclass
class StatisticsState:
    """State of ``EpisodeStatistics``."""

    env_state: PyTree  # the wrapped environment's
    episode_return: jax.Array  # () float32, of the episode under way
    episode_length: jax.Array  # () int32, of the episode under way
    returned_episode_return: jax.Array  # () float32, of the last episode that ended; 0 before
    returned_episode_length: jax.Array  # () int32, of the last episode that ended; 0 before


@dataclass(frozen=True)
class EpisodeStatistics(StatefulWrapper):
    """Adds each finished episode's return and length to ``info``.

    ``info["returned_episode"]`` is True where this step ended an episode.
    ``info["returned_episode_returns"]`` (float32) and ``info["returned_episode_lengths"]`` (int32) are those
    of the last episode that ended.
    """

    @jitted
    def reset(self, key: jax.Array, params: PyTree = None) -> tuple[PyTree, StatisticsState]:
        """Begin an episode with empty statistics."""
        obs, env_state = self.env.reset(key, params)
        zero, none = jnp.float32(0), jnp.int32(0)
        return obs, StatisticsState(env_state, zero, none, zero, none)

    @jitted
    def step(self, key: jax.Array, state: StatisticsState, action: PyTree, params: PyTree = None) -> Step:
        """Take one step and count it."""
        obs, env_state, reward, terminated, truncated, info = self.env.step(
            key, state.env_state, action, params
        )
        done = terminated | truncated
        episode_return = state.episode_return + jnp.asarray(reward, jnp.float32)
        episode_length = state.episode_length + 1
        state = StatisticsState(
            env_state=env_state,
            episode_return=jnp.where(done, 0.0, episode_return),
            episode_length=jnp.where(done, 0, episode_length),
            returned_episode_return=jnp.where(done, episode_return, state.returned_episode_return),
            returned_episode_length=jnp.where(done, episode_length, state.returned_episode_length),
        )
        info = {
            **info,
            "returned_episode": done,
            "returned_episode_returns": state.returned_episode_return,
            "returned_episode_lengths": state.returned_episode_length,
        }
        return obs, state, reward, terminated, truncated, info


@struct.dataclass
class FrameStackState:
    """State of ``FrameStack``."""

    env_state: PyTree  # the wrapped environment's
    frames: jax.Array  # (num_frames, *obs.shape), oldest first


@dataclass(frozen=True)
class FrameStack(StatefulWrapper):
    """The last ``num_frames`` observations on a new leading axis, oldest first.

    An episode begins with its first observation repeated. ``info["final_observation"]`` is stacked on the
    frames of the episode that ended.
    """

    num_frames: int = 4

    def __post_init__(self) -> None:
        """Check the configuration."""
        if not isinstance(self.num_frames, int) or self.num_frames < 1:
            raise ValueError(f"FrameStack: num_frames must be a positive integer, got {self.num_frames!r}")
        self._frame_space()

    def _frame_space(self, params: PyTree = None) -> spaces.Box:
        space = super().observation_space(params)
        if not isinstance(space, spaces.Box):
            raise ValueError(f"FrameStack: expected Box observations, got {space!r}; flatten them first")
        return space

    def observation_space(self, params: PyTree = None) -> spaces.Box:
        """Return the stacked Box."""
        space = self._frame_space(params)
        shape = (self.num_frames, *space.shape)
        low, high = (b if np.ndim(b) == 0 else np.broadcast_to(b, shape) for b in (space.low, space.high))
        return spaces.Box(low, high, shape, space.dtype)

    @jitted
    def reset(self, key: jax.Array, params: PyTree = None) -> tuple[jax.Array, FrameStackState]:
        """Begin an episode with its first observation repeated."""
        obs, env_state = self.env.reset(key, params)
        frames = jnp.repeat(obs[None], self.num_frames, axis=0)
        return frames, FrameStackState(env_state, frames)

    @jitted
    def step(self, key: jax.Array, state: FrameStackState, action: PyTree, params: PyTree = None) -> Step:
        """Take one step and shift its observation in."""
        obs, env_state, reward, terminated, truncated, info = self.env.step(
            key, state.env_state, action, params
        )
        done = terminated | truncated
        final = jnp.concatenate([state.frames[1:], info["final_observation"][None]])
        fresh = jnp.repeat(obs[None], self.num_frames, axis=0)
        frames = jnp.where(done, fresh, final)
        info = {**info, "final_observation": final}
        return frames, FrameStackState(env_state, frames), reward, terminated, truncated, info
