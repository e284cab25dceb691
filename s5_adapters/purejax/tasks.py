"""Tasks of several trials, played whole: the return of each trial, the reward of each step."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from s5_adapters.core import checks
from s5_adapters.purejax.evaluate import STEPS_PER_CALL, act
from s5_adapters.purejax.normalization import RunningStats
from s5_adapters.purejax.problem import Problem, Pytree

_STREAM = 0x7A5C5  # folded into the key: no task of a training, whatever its seed, is drawn by these keys


class Tasks(NamedTuple):
    """What was played of one family; raw rewards, never normalised."""

    family: str
    trial_returns: np.ndarray
    """``(num_tasks, num_trials)`` float32."""
    rewards: np.ndarray
    """``(num_tasks, num_steps)`` float32, of each step of the task; NaN after its end."""


class _Loop(NamedTuple):
    env_state: Pytree
    obs: Pytree
    episode_starts: jax.Array
    memory_state: Pytree
    key: jax.Array


class _Record(NamedTuple):
    """One step, or several; ``(..., num_envs)``."""

    reward: jax.Array
    done: jax.Array
    family: jax.Array
    trial: jax.Array
    trial_return: jax.Array
    trial_ended: jax.Array


def play_tasks(
    problem: Problem,
    params: Pytree,
    obs_stats: RunningStats | None,
    num_tasks: int,
    *,
    seed: int = 0,
    deterministic: bool = False,
) -> list[Tasks]:
    """Play tasks side by side, one in each environment, all of their trials.

    The memory starts empty in each task, observations are normalised by frozen statistics. Without resets,
    the memory is what a task before, which is not counted, left in it. The keys that draw the tasks are no
    training's, whatever its seed.

    Args:
        problem: environment and network; the environment has ``Trials``.
        params: the network's parameters.
        obs_stats: None where observations are not normalised.
        num_tasks: tasks of each family. Where the environment draws each task's family by key, those are
            the mean number.
        seed: of the tasks and of the actions.
        deterministic: take the mode of the policy's distribution instead of a sample.

    Raises:
        ValueError: one line, where the environment has no trials.
    """
    families = problem.families
    num_envs = checks.integer("num_tasks", num_tasks) * len(families)
    kind = (_Programs, num_envs, deterministic)
    if kind not in problem.programs:
        problem.programs[kind] = _Programs(problem, num_envs, deterministic)
    programs: _Programs = problem.programs[kind]
    loop = programs.reset(jax.random.fold_in(jax.random.key(seed), _STREAM))
    chunks: list[dict[str, np.ndarray]] = []
    finished = np.zeros(num_envs, np.int32)
    while finished.min() <= problem.unseen_episodes:
        loop, record = programs.play(loop, params, obs_stats)
        chunks.append({name: np.asarray(values) for name, values in record._asdict().items()})
        finished += chunks[-1]["done"].sum(axis=0, dtype=np.int32)
    steps = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in _Record._fields}
    counted = _counted(steps, problem.unseen_episodes)
    return [
        _played(name, {field: values[:, counted["family"][0] == i] for field, values in counted.items()})
        for i, name in enumerate(families)
    ]


def _counted(record: dict[str, np.ndarray], tasks_before: int) -> dict[str, np.ndarray]:
    """Keep of a record, ``(steps, envs)``, each environment's tasks after its first ``tasks_before``."""
    begun = np.cumsum(record["done"], axis=0) - record["done"]
    first = (begun == tasks_before).argmax(axis=0)
    rows = np.minimum(first + np.arange(len(begun))[:, None], len(begun) - 1)
    return {field: np.take_along_axis(values, rows, axis=0) for field, values in record.items()}


def _played(name: str, record: dict[str, np.ndarray]) -> Tasks:
    """Keep of a record, ``(steps, envs)``, what belongs to each environment's first task."""
    done = record["done"]
    is_later = np.cumsum(done, axis=0) - done > 0
    steps, envs = np.nonzero(record["trial_ended"] & ~is_later)
    trials = record["trial"][steps, envs]
    returns = np.full((done.shape[1], 1 + trials.max(initial=0)), np.nan, np.float32)
    returns[envs, trials] = record["trial_return"][steps, envs]
    longest = int((~is_later).sum(axis=0).max(initial=0))
    rewards = np.where(is_later, np.float32(np.nan), record["reward"])[:longest].T
    return Tasks(name, returns, rewards)


def require_trials(problem: Problem) -> None:
    """Refuse an environment whose steps tell of no trials.

    Raises:
        ValueError: one line that names it.
    """
    if not problem.has_trials:
        raise ValueError(
            f"{problem.env.name}: the environment has no trials, expected one with s5_envs.Trials in it"
        )


class _Programs:
    """The two programs of a player of tasks."""

    def __init__(self, problem: Problem, num_envs: int, deterministic: bool):
        require_trials(problem)
        self.reset: Any = jax.jit(partial(_reset, problem, num_envs))
        self.play: Any = jax.jit(partial(_play, problem, deterministic), donate_argnums=0)


def _reset(problem: Problem, num_envs: int, key: jax.Array) -> _Loop:
    reset_key, key = jax.random.split(key)
    obs, env_state = problem.reset(reset_key, num_envs)
    starts = jnp.ones(num_envs, bool)
    return _Loop(env_state, obs, starts, problem.net.initial_state(num_envs), key)


def _play(
    problem: Problem, deterministic: bool, loop: _Loop, params: Pytree, obs_stats: RunningStats | None
) -> tuple[_Loop, _Record]:
    """Take ``STEPS_PER_CALL`` steps; the record leads with them."""
    prepared = problem.net.prepare(params)

    def step(loop: _Loop, _: None) -> tuple[_Loop, _Record]:
        key, memory_state, env = act(problem, deterministic, loop, prepared, obs_stats)
        done = env.terminated | env.truncated
        family = env.info.get("family", jnp.zeros(len(done), jnp.int32))
        told = (env.info[name] for name in ("trial", "trial_return", "trial_ended"))
        record = _Record(env.reward, done, family, *told)
        return _Loop(env.state, env.obs, done, memory_state, key), record

    return jax.lax.scan(step, loop, None, length=STEPS_PER_CALL)
