"""Parallel episodes of one environment, stepped by one compiled call: the basis of ``gymnasium``.

gymnax begins the next episode in the step that ends the last one. A lane keeps that beginning ready until
it is told to begin. So every autoreset mode plays the same episodes in the same order, and a lane of a
vector environment plays what a single environment with its seed plays.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, TypeAlias

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector.utils import batch_space

from s5_envs import spaces
from s5_envs.actions import check_actions
from s5_envs.base import Environment
from s5_envs.interface import AnyEnvironment, Info, PyTree
from s5_envs.processes import refuse_forked_process
from s5_envs.wrappers import Wrapper


class Transition(NamedTuple):
    """The result of one step; every array is numpy's with the episodes in front."""

    obs: PyTree  # what the step itself led to; in a lane that began an episode instead, its first observation
    next_obs: PyTree  # the next episode's first observation where one has ended, elsewhere the same as obs
    reward: np.ndarray  # (num_lanes,) float32
    terminated: np.ndarray  # (num_lanes,) bool
    truncated: np.ndarray  # (num_lanes,) bool
    info: Info  # the environment's own entries


Begun: TypeAlias = tuple[jax.Array, PyTree, PyTree]
"""Keys, states and first observations of all lanes."""


class Lanes:
    """Independent episodes of one environment.

    Args:
        env: a gymnax 1.x environment, wrapped or not.
        params: its parameters.
        num_lanes: how many episodes.
    """

    def __init__(self, env: AnyEnvironment, params: PyTree, num_lanes: int):
        refuse_forked_process()
        self.env, self.params, self.num_lanes = env, params, num_lanes
        self.single_action_space = spaces.to_gymnasium(env.action_space(params))
        self.single_observation_space = spaces.to_gymnasium(env.observation_space(params))
        self.observation_space = batch_space(self.single_observation_space, num_lanes)
        self.ended = np.zeros(num_lanes, bool)  # where an episode is over and the next not begun
        self._keys: jax.Array | None = None  # of each lane, None until the first reset
        self._state: PyTree = None
        self._first_obs: PyTree = None
        self._final_obs: PyTree = None
        self._last_step: PyTree = None  # keys, states and actions that went into it

    @property
    def is_started(self) -> bool:
        """Whether ``reset`` has been called."""
        return self._keys is not None

    def reset(self, seeds: np.ndarray | None = None, mask: np.ndarray | None = None) -> PyTree:
        """Begin an episode in the lanes of ``mask`` (all by default).

        Args:
            seeds: ``(num_lanes,)`` uint64, from which all of a lane's randomness follows; None carries on
                with the episode that is ready where the last one is over, and abandons it for a new one
                elsewhere.
            mask: ``(num_lanes,)`` bool.

        Returns:
            the batched first observations; outside the mask, what the last call or step returned.
        """
        refuse_forked_process()
        mask = np.ones(self.num_lanes, bool) if mask is None else mask
        fresh = mask if seeds is not None else mask & ~self.ended
        if fresh.any():
            keys = self._keys if seeds is None else _keys_of(seeds)
            begun = _reset(self.env, self.params, keys)
            if self.is_started:
                begun = _choose(fresh, begun, (self._keys, self._state, self._first_obs))
            self._keys, self._state, self._first_obs = begun
        self.ended = self.ended & ~mask
        if self.ended.any():
            return self._to_numpy(_choose(self.ended, self._final_obs, self._first_obs))
        return self._to_numpy(self._first_obs)

    def step(self, actions: np.ndarray, begin: np.ndarray | None = None) -> Transition:
        """Take one step in every lane, or begin the episode that is ready where ``begin`` is set.

        Args:
            actions: the batched actions, ``(num_lanes, ...)``, as ``check_actions`` returns them.
            begin: ``(num_lanes,)`` bool, True only where an episode is over; None for nowhere.
        """
        keys, state = self._keys, self._state
        (self._keys, self._state, self._first_obs), self._final_obs, outcome = _step(
            self.env, self.params, keys, state, self._first_obs, actions, begin
        )
        self._last_step = (keys, state, actions)
        *outcome, info = jax.device_get(outcome)
        # Copies, as JAX's own arrays cannot be written to.
        reward, terminated, truncated = (np.array(x) for x in outcome)
        self.ended = terminated | truncated
        obs = self._to_numpy(self._final_obs)
        next_obs = self._to_numpy(self._first_obs) if self.ended.any() else obs
        return Transition(obs, next_obs, reward, terminated, truncated, info)

    def begin_next(self) -> None:
        """Begin the episode that is ready in every lane whose last one is over."""
        self.ended = np.zeros(self.num_lanes, bool)

    def check_actions(self, actions: PyTree) -> np.ndarray:
        """Return batched actions as ``step`` takes them.

        Raises:
            ValueError: as ``s5_envs.actions.check_actions``.
        """
        return check_actions(self.single_action_space, actions, self.num_lanes, self.env.name)

    def check_action(self, action: PyTree) -> np.ndarray:
        """Return the action of a single lane as ``step`` takes it, see ``check_actions``."""
        return check_actions(self.single_action_space, action, None, self.env.name)[None]

    def render(self, lane: int, mode: str) -> str | np.ndarray:
        """Draw one lane, the end of its episode until the next one is begun (``Environment.render``)."""
        inner = innermost(self.env)
        if self.ended[lane]:
            key, state, action = jax.tree.map(lambda x: x[lane], self._last_step)
            state = _final_state(self.env, self.params, key, state, action)
        else:
            state = self._inner_state(jax.tree.map(lambda x: x[lane], self._state))
        picture: str | np.ndarray = inner.render(jax.device_get(state), self.params, mode)
        return picture

    def _inner_state(self, state: PyTree) -> PyTree:
        return self.env.unwrapped_state(state) if isinstance(self.env, Wrapper) else state

    def _to_numpy(self, obs: PyTree) -> PyTree:
        return _to_numpy(self.observation_space, jax.device_get(obs))


def innermost(env: AnyEnvironment) -> Any:
    """Return the environment inside this package's wrappers, of whatever class."""
    return env.unwrapped if isinstance(env, Wrapper) else env


def can_render(env: AnyEnvironment) -> bool:
    """Tell whether there are pictures of an environment: of all in this package, through its own wrappers."""
    return isinstance(innermost(env), Environment)


def _to_numpy(space: gymnasium.Space[Any], obs: PyTree) -> PyTree:
    """Return writable copies of the space's types."""
    if isinstance(space, gymnasium.spaces.Dict):
        return {name: _to_numpy(part, obs[name]) for name, part in space.spaces.items()}
    if isinstance(space, gymnasium.spaces.Tuple):
        return tuple(_to_numpy(part, value) for part, value in zip(space.spaces, obs, strict=True))
    return np.array(obs, dtype=space.dtype)


def _choose(mask: jax.Array | np.ndarray, first: PyTree, second: PyTree) -> PyTree:
    """Take the lanes of ``mask`` from ``first``, the others from ``second``."""

    def choose(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(jnp.reshape(mask, (-1,) + (1,) * (jnp.ndim(a) - 1)), a, b)

    return jax.tree.map(choose, first, second)


def _keys_of(seeds: np.ndarray) -> jax.Array:
    """Return a key for each of the ``(num_lanes,)`` uint64 seeds."""
    low, high = (seeds & 0xFFFFFFFF).astype(np.uint32), (seeds >> np.uint64(32)).astype(np.uint32)
    keys: jax.Array = _keys_of_halves(low, high)
    return keys


@jax.jit
def _keys_of_halves(low: jax.Array, high: jax.Array) -> jax.Array:
    return jax.vmap(lambda low, high: jax.random.fold_in(jax.random.key(low), high))(low, high)


def _split(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the keys to keep and the keys to use."""
    pairs = jax.vmap(jax.random.split)(keys)
    return pairs[:, 0], pairs[:, 1]


@partial(jax.jit, static_argnums=0)
def _reset(env: AnyEnvironment, params: PyTree, keys: jax.Array) -> Begun:
    keys, used = _split(keys)
    obs, state = jax.vmap(env.reset, (0, None))(used, params)
    return keys, state, obs


@partial(jax.jit, static_argnums=0)
def _step(
    env: AnyEnvironment,
    params: PyTree,
    keys: jax.Array,
    state: PyTree,
    first_obs: PyTree,
    actions: jax.Array,
    begin: jax.Array | None,
) -> tuple[Begun, PyTree, tuple[jax.Array, jax.Array, jax.Array, Info]]:
    next_keys, used = _split(keys)
    next_obs, next_state, reward, terminated, truncated, info = jax.vmap(env.step, (0, 0, 0, None))(
        used, state, actions, params
    )
    obs = info["final_observation"]
    reward, terminated, truncated = (
        jnp.asarray(reward, jnp.float32),
        jnp.asarray(terminated, bool),
        jnp.asarray(truncated, bool),
    )
    own = {k: v for k, v in info.items() if k not in ("final_observation", "terminated", "truncated")}
    following = (next_keys, next_state, next_obs)
    if begin is not None:
        following = _choose(begin, (keys, state, first_obs), following)
        obs = _choose(begin, first_obs, obs)
        reward = jnp.where(begin, 0.0, reward)
        terminated, truncated = terminated & ~begin, truncated & ~begin
    return following, obs, (reward, terminated, truncated, own)


@partial(jax.jit, static_argnums=0)
def _final_state(
    env: AnyEnvironment, params: PyTree, key: jax.Array, state: PyTree, action: jax.Array
) -> PyTree:
    _, used = jax.random.split(key)
    if isinstance(env, Wrapper):
        state, action = env.unwrapped_state(state), env.unwrapped_action(action, state)
    return innermost(env).final_state(used, state, action, params)
