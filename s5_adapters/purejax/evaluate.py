"""The return of a policy over whole episodes."""

import math
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from s5_adapters.core import checks
from s5_adapters.core.network.distributions import distribution
from s5_adapters.purejax.normalization import RunningStats, normalize
from s5_adapters.purejax.problem import EnvStep, Problem, Pytree

MAX_ENVS = 64
STEPS_PER_CALL = 256


class Evaluation(NamedTuple):
    """Returns and lengths of whole episodes, raw: rewards are never normalised here."""

    returns: np.ndarray
    """``(num_episodes,)`` float32."""
    lengths: np.ndarray
    """``(num_episodes,)`` int32."""

    @property
    def mean(self) -> float:
        """Mean episodic return."""
        return float(self.returns.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean; NaN for a single episode, which says nothing about it."""
        episodes = len(self.returns)
        return float(self.returns.std(ddof=1) / math.sqrt(episodes)) if episodes > 1 else math.nan


class Acting(Protocol):
    """Where a policy that plays stands; arrays lead with ``num_envs``."""

    @property
    def env_state(self) -> Pytree:
        """Environment states."""

    @property
    def obs(self) -> Pytree:
        """The observation to act on next."""

    @property
    def episode_starts(self) -> jax.Array:
        """bool: it is the first of its episode."""

    @property
    def memory_state(self) -> Pytree:
        """The memory's state before it."""

    @property
    def key(self) -> jax.Array:
        """Where all later randomness comes from."""


class _Loop(NamedTuple):
    env_state: Pytree
    obs: Pytree
    episode_starts: jax.Array
    memory_state: Pytree
    episode_return: jax.Array
    episode_length: jax.Array
    key: jax.Array
    finished: jax.Array  # (num_envs,) int32: episodes finished; negative before those that count
    returns: jax.Array  # (num_envs, quota) float32
    lengths: jax.Array  # (num_envs, quota) int32


class Evaluator:
    """Plays a fixed number of episodes, compiled once for all evaluators of its kind and problem.

    Every environment plays a share of the episodes that is fixed beforehand: taking whichever end first would
    favour short ones. The memory starts empty in each, observations are normalised by frozen statistics.
    Without resets, the memory is what an episode before, which is not counted, left in it.

    Args:
        problem: environment and network.
        num_episodes: how many episodes.
        deterministic: take the mode of the policy's distribution instead of a sample.
    """

    def __init__(self, problem: Problem, num_episodes: int, deterministic: bool = False):
        num_episodes = checks.integer("num_episodes", num_episodes)
        num_envs = min(num_episodes, MAX_ENVS)
        more = num_episodes % num_envs
        self._shares = (num_episodes // num_envs + 1,) * more + (num_episodes // num_envs,) * (
            num_envs - more
        )
        kind = (_Programs, self._shares, deterministic)
        if kind not in problem.programs:
            problem.programs[kind] = _Programs(problem, self._shares, deterministic)
        self._programs: _Programs = problem.programs[kind]

    def __call__(self, params: Pytree, obs_stats: RunningStats | None, key: jax.Array) -> Evaluation:
        """Play; ``obs_stats`` is None where observations are not normalised."""
        loop = self._programs.reset(key)
        while np.any(np.asarray(loop.finished) < self._shares):
            loop = self._programs.play(loop, params, obs_stats)
        played = np.arange(max(self._shares)) < np.array(self._shares)[:, None]
        return Evaluation(np.asarray(loop.returns)[played], np.asarray(loop.lengths)[played])


class _Programs:
    """The two programs of an evaluator."""

    def __init__(self, problem: Problem, shares: tuple[int, ...], deterministic: bool):
        self.reset: Any = jax.jit(partial(_reset, problem, shares))
        self.play: Any = jax.jit(partial(_play, problem, shares, deterministic), donate_argnums=0)


def act(
    problem: Problem,
    deterministic: bool,
    now: Acting,
    prepared: Pytree,
    obs_stats: RunningStats | None,
) -> tuple[jax.Array, Pytree, EnvStep]:
    """Take one step of a frozen policy in every environment.

    Returns:
        The next key, the memory's next state, and what the environments gave.
    """
    key, action_key, env_key = jax.random.split(now.key, 3)
    obs = now.obs if obs_stats is None else normalize(obs_stats, now.obs)
    episode_starts = problem.memory_starts(now.episode_starts)
    memory_state, dist_inputs, _ = problem.net.step(prepared, now.memory_state, obs, episode_starts)
    dist = distribution(problem.action, dist_inputs)
    action = dist.mode() if deterministic else dist.sample(action_key)
    env_keys = jax.random.split(env_key, len(episode_starts))
    return key, memory_state, problem.step(env_keys, now.env_state, action)


def _reset(problem: Problem, shares: tuple[int, ...], key: jax.Array) -> _Loop:
    num_envs = len(shares)
    reset_key, key = jax.random.split(key)
    obs, env_state = problem.reset(reset_key, num_envs)
    return _Loop(
        env_state=env_state,
        obs=obs,
        episode_starts=jnp.ones(num_envs, bool),
        memory_state=problem.net.initial_state(num_envs),
        episode_return=jnp.zeros(num_envs, jnp.float32),
        episode_length=jnp.zeros(num_envs, jnp.int32),
        key=key,
        finished=jnp.full(num_envs, -problem.unseen_episodes, jnp.int32),
        returns=jnp.zeros((num_envs, max(shares)), jnp.float32),
        lengths=jnp.zeros((num_envs, max(shares)), jnp.int32),
    )


def _play(
    problem: Problem,
    shares: tuple[int, ...],
    deterministic: bool,
    loop: _Loop,
    params: Pytree,
    obs_stats: RunningStats | None,
) -> _Loop:
    """Step until every share is played, at most ``STEPS_PER_CALL`` times, so that the host can interrupt."""
    num_envs = len(shares)
    prepared = problem.net.prepare(params)

    def unfinished(carry: tuple[jax.Array, _Loop]) -> jax.Array:
        steps, loop = carry
        return (steps < STEPS_PER_CALL) & jnp.any(loop.finished < jnp.array(shares))

    def step(carry: tuple[jax.Array, _Loop]) -> tuple[jax.Array, _Loop]:
        steps, loop = carry
        key, memory_state, env = act(problem, deterministic, loop, prepared, obs_stats)
        done = env.terminated | env.truncated
        episode_return = loop.episode_return + env.reward
        episode_length = loop.episode_length + 1

        # Where nothing that counts ended, and past the share, the slot is out of bounds: nothing is written.
        slot = jnp.where(done & (loop.finished >= 0), loop.finished, loop.returns.shape[1])
        rows = jnp.arange(num_envs)
        return steps + 1, _Loop(
            env_state=env.state,
            obs=env.obs,
            episode_starts=done,
            memory_state=memory_state,
            episode_return=jnp.where(done, 0.0, episode_return),
            episode_length=jnp.where(done, 0, episode_length),
            key=key,
            finished=loop.finished + done,
            returns=loop.returns.at[rows, slot].set(episode_return, mode="drop"),
            lengths=loop.lengths.at[rows, slot].set(episode_length, mode="drop"),
        )

    return jax.lax.while_loop(unfinished, step, (jnp.int32(0), loop))[1]
