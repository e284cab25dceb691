"""What the RLlib tests share: a Ray of their own on this machine, small settings, a learning run."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
import ray
import torch
from ray import cloudpickle
from ray.rllib.core.columns import Columns

from s5_adapters.rllib import S5PPOConfig

torch.set_num_threads(1)
# Ray's workers cannot import this file: its functions travel to them whole.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

TINY = {"d_model": 8, "d_state": 8, "encoder": [8], "actor_torso": [8], "critic_torso": [8]}

# Ray forks before it executes its own programs, where nothing of JAX is used; and it leaves files and
# sockets to the garbage collector, which pytest reports as unraisable.
quiet_ray = [
    pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*Overriding environment rllib-single-agent-env-v0:UserWarning"),
    pytest.mark.filterwarnings(r"ignore:.[\w.]+. .*deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@contextlib.contextmanager
def local_ray(**arguments: Any) -> Iterator[None]:
    """A Ray of two CPUs, reachable from this machine alone."""
    ray.init(num_cpus=2, include_dashboard=False, address="local", log_to_driver=False, **arguments)
    try:
        yield
    finally:
        ray.shutdown()


def tiny_config(**model_config: Any) -> S5PPOConfig:
    """An iteration of it takes a second."""
    return (
        S5PPOConfig()
        .environment("RepeatPreviousEasy")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=4)
        .rl_module(model_config=TINY | {"max_seq_len": 16} | model_config)
        .training(train_batch_size_per_learner=256, minibatch_size=128, num_epochs=2)
        .debugging(seed=0)
    )


def mean_return(result: dict[str, Any]) -> float:
    """Over the last hundred episodes."""
    return result["env_runners"].get("episode_return_mean", float("nan"))


def train_until(algo: Any, target: float, iterations: int) -> float:
    """Train until the mean return reaches the target; the best one seen."""
    best = float("-inf")
    for _ in range(iterations):
        best = max(best, mean_return(algo.train()))
        if best >= target:
            break
    return best


def logits_of(module: Any) -> np.ndarray:
    """Ten steps from a fresh state on fixed observations: `(2, 10, K)`."""
    rng = np.random.default_rng(0)
    state = {name: torch.zeros(2, len(leaf)) for name, leaf in module.get_initial_state().items()}
    steps = []
    for _ in range(10):
        obs = torch.from_numpy(rng.standard_normal((2, 1, 4), dtype=np.float32))
        outputs = module.forward_inference({Columns.OBS: obs, Columns.STATE_IN: state})
        state = outputs[Columns.STATE_OUT]
        steps.append(outputs[Columns.ACTION_DIST_INPUTS].numpy().copy())
    return np.concatenate(steps, axis=1)


def process_of(runner: Any) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "node": ray.get_runtime_context().get_node_id(),
        "platforms": os.environ.get("JAX_PLATFORMS"),
        "preallocate": os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE"),
        "backend": jax.default_backend(),
    }


def remote_runners(algo: Any, ask: Any) -> list[Any]:
    return algo.env_runner_group.foreach_env_runner(ask, local_env_runner=False)


def runner_logits(runner: Any) -> np.ndarray:
    return logits_of(runner.module)
