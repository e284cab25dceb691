"""A trained policy back from the folder of its run."""

import math
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from s5_adapters.core.files.weights import ObservationStatistics, Policy
from s5_adapters.core.network.normalization import CLIP, EPSILON
from s5_adapters.purejax.checkpoint import Checkpoints
from s5_adapters.purejax.evaluate import Evaluation, Evaluator
from s5_adapters.purejax.logging import read_log
from s5_adapters.purejax.normalization import RunningStats
from s5_adapters.purejax.problem import Problem, Pytree, build_problem
from s5_adapters.purejax.run_folder import CHECKPOINTS_NAME, RunConfig, read_config


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
    """MMER: the largest mean episodic return of an update up to this one; NaN if no episode ended."""

    def evaluate(self, episodes: int, *, seed: int = 0, deterministic: bool = False) -> Evaluation:
        """Play whole episodes; see ``Evaluator``."""
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


def restore_policy(run_dir: str | Path, update: int | None = None) -> RestoredPolicy:
    """Read a policy back.

    Args:
        run_dir: folder of a run.
        update: the checkpoint after this many updates; None for the latest.

    Raises:
        ValueError: one line, where there is no such run or checkpoint, or it does not fit the configuration.
    """
    run_dir = Path(run_dir)
    config = read_config(run_dir)
    problem = build_problem(config.training)
    like = jax.eval_shape(lambda: config.training.init_state(problem, jax.random.key(0), jnp.float32(0)))
    state = Checkpoints(run_dir / CHECKPOINTS_NAME).restore(like, update)
    done = int(state.update)
    returns = [row.get("episode_return") for row in read_log(run_dir) if row["update"] <= done]
    best = max((value for value in returns if value is not None), default=math.nan)
    return RestoredPolicy(config, problem, state.params, state.carry.obs_stats, done, best)
