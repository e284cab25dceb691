"""Recurrent PPO in one jitted program, and what runs, watches, keeps and evaluates it."""

from s5_adapters.purejax.config import PPOConfig
from s5_adapters.purejax.evaluate import Evaluation, Evaluator
from s5_adapters.purejax.ppo import METRICS, TrainResult, TrainState, make_train
from s5_adapters.purejax.problem import Problem, build_problem
from s5_adapters.purejax.restore import RestoredPolicy, restore_policy
from s5_adapters.purejax.run_folder import RunConfig, RunOptions, read_config
from s5_adapters.purejax.trainer import InterruptedRunError, NonFiniteError, Trainer

__all__ = [
    "METRICS",
    "Evaluation",
    "Evaluator",
    "InterruptedRunError",
    "NonFiniteError",
    "PPOConfig",
    "Problem",
    "RestoredPolicy",
    "RunConfig",
    "RunOptions",
    "TrainResult",
    "TrainState",
    "Trainer",
    "build_problem",
    "make_train",
    "read_config",
    "restore_policy",
]
