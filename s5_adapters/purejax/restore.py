"""A trained policy back from the folder of its run."""

import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from s5_adapters.core.files.weights import ObservationStatistics, Policy, as_policy
from s5_adapters.core.network.normalization import CLIP, EPSILON
from s5_adapters.purejax.algorithms.algorithm import TrainState
from s5_adapters.purejax.algorithms.ppo import PPOConfig
from s5_adapters.purejax.checkpoint import Checkpoints
from s5_adapters.purejax.evaluate import Evaluation, Evaluator
from s5_adapters.purejax.logging import salvage_log
from s5_adapters.purejax.normalization import RunningStats
from s5_adapters.purejax.problem import Problem, Pytree, build_problem
from s5_adapters.purejax.run_folder import CHECKPOINTS_NAME, RunConfig, read_config
from s5_adapters.purejax.start import as_running_stats, network_settings, require_start


class RestoredPolicy(NamedTuple):
    """The policy of a checkpoint, with the run's configuration."""

    config: RunConfig
    problem: Problem
    params: Pytree
    obs_stats: RunningStats | None
    """Statistics that observations are normalised by, frozen; None where they are not."""
    update: int
    """Updates done."""
    best_return: float
    """MMER: the largest mean episodic return of an update up to this one; NaN if the log has none."""

    def evaluate(self, episodes: int, *, seed: int = 0, deterministic: bool = False) -> Evaluation:
        """Play whole episodes; see ``Evaluator``.

        Args:
            episodes: how many.
            seed: of the episodes and of the actions.
            deterministic: take the most likely action instead of a sample.

        Returns:
            The returns and lengths of the episodes, ``(episodes,)`` each; rewards are raw.

        Raises:
            ValueError: ``episodes`` is no positive integer.
        """
        evaluator = Evaluator(self.problem, episodes, deterministic)
        return evaluator(self.params, self.obs_stats, jax.random.key(seed))

    def to_portable(self) -> Policy:
        """Return the policy as ``save_policy`` writes it and every ecosystem reads it."""
        statistics = None
        if self.obs_stats is not None:
            mean, variance = np.asarray(self.obs_stats.mean), np.asarray(self.obs_stats.variance)
            statistics = ObservationStatistics(mean, variance, EPSILON, CLIP, float(self.obs_stats.samples))
        training = self.config.training
        return Policy(
            config=self.problem.net.config,
            params=self.params,
            obs_statistics=statistics,
            env_id=training.env_id,
            env_kwargs=training.to_dict()["env_kwargs"],
            training={
                "trainer": "s5_adapters.purejax",
                "config": self.config.to_dict(),
                "updates": self.update,
                "steps": self.update * training.steps_per_update,
                "best_mean_return": None if math.isnan(self.best_return) else self.best_return,
            },
        )


def to_portable(config: RunConfig, problem: Problem, state: TrainState, best_return: float) -> Policy:
    """Return the policy of a run's state, as ``RestoredPolicy.to_portable`` does."""
    update, stats = int(state.update), state.carry.obs_stats
    return RestoredPolicy(config, problem, state.params, stats, update, best_return).to_portable()


def from_file(
    path: str | Path, env_id: str | None = None, env_kwargs: Mapping[str, Any] | None = None
) -> RestoredPolicy:
    """Read a portable policy, to play without a run.

    Args:
        path: the file.
        env_id: the environment; None for the one that the file names.
        env_kwargs: its keyword arguments, on top of the file's where the environment is its own.

    Raises:
        ValueError: one line, where there is no such file or environment, or the policy does not fit it.
    """
    policy = as_policy(path)
    if env_id is None and policy.env_id is None:
        raise ValueError(f"{path}: the file names no environment, expected --env-id")
    own = policy.env_kwargs if env_id in (None, policy.env_id) else {}
    training = PPOConfig(
        env_id=env_id or policy.env_id or "",
        env_kwargs={**own, **(env_kwargs or {})},
        **network_settings(policy),
    )
    problem = build_problem(training)
    if policy.config.action_mask and not problem.net.config.action_mask:
        raise ValueError(
            f"{path}: the policy was trained with masks of allowed actions, which {training.env_id} does not "
            "give (it may need --env-kwargs action_mask=true)"
        )
    require_start(policy, problem)
    statistics = policy.obs_statistics
    stats = None if statistics is None else as_running_stats(statistics)
    told = policy.training
    best = told.get("best_mean_return")
    params = jax.tree.map(jnp.asarray, policy.params)
    update = told.get("updates", 0)
    return RestoredPolicy(
        RunConfig(training), problem, params, stats, update, math.nan if best is None else float(best)
    )


def restore_policy(
    run_dir: str | Path, update: int | None = None, *, report: Callable[[str], object] = warnings.warn
) -> RestoredPolicy:
    """Read a policy back; nothing in the run's folder changes.

    Args:
        run_dir: folder of a run.
        update: the checkpoint after this many updates; None for the newest that is whole.
        report: given a line for each newer checkpoint that was passed over, since it is cut short or changed.

    Raises:
        ValueError: one line, where there is no such run or checkpoint, or it does not fit the configuration.
    """
    run_dir = Path(run_dir)
    config = read_config(run_dir)
    problem = build_problem(config.training)
    like = jax.eval_shape(lambda: config.training.init_state(problem, jax.random.key(0), jnp.float32(0)))
    checkpoints = Checkpoints(run_dir / CHECKPOINTS_NAME)
    if update is None:
        done, state, damaged = checkpoints.newest_whole(like)
        for error in damaged:
            report(f"{error}; passed over, taking the one after update {done}")
    else:
        done, state = update, checkpoints.restore(like, update)
    rows, _ = salvage_log(run_dir)  # a policy that is whole is played, whatever became of the log
    returns = [row.get("episode_return") for row in rows if row["update"] <= done]
    best = max((value for value in returns if value is not None), default=math.nan)
    return RestoredPolicy(config, problem, state.params, state.carry.obs_stats, done, best)
