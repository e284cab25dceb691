"""PPO learns what cannot be learned without memory, on both API stacks, with and without env runners."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from _rllib import NETWORK, local_ray, quiet_ray, train_until
from ray.rllib.algorithms.ppo import PPOConfig

from s5_adapters.rllib import S5PPOConfig, register_envs

pytestmark = quiet_ray

# An episode and RLlib's extra step are one row of 52. No action there changes what follows: gamma 0.
REPEAT = ("RepeatPreviousEasy", {"gamma": 0.0, "lr": 2e-3, "minibatch_size": 1024}, 52, 60)
CARTPOLE = ("PositionOnlyCartPoleEasy", {"gamma": 0.97, "lr": 2e-3, "minibatch_size": 512}, 32, 40)
"""Environment, training settings, row length, iterations: about twice those that it takes."""


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    with local_ray():
        yield


@pytest.mark.parametrize(
    ("task", "runners"),
    [
        (REPEAT, 0),
        (CARTPOLE, 2),
        pytest.param(REPEAT, 2, marks=pytest.mark.slow),
        pytest.param(CARTPOLE, 0, marks=pytest.mark.slow),
    ],
)
def test_the_new_stack_learns(task: tuple[str, dict[str, Any], int, int], runners: int) -> None:
    env, training, max_seq_len, iterations = task
    config = (
        S5PPOConfig()
        .environment(env)
        .env_runners(num_env_runners=runners, num_envs_per_env_runner=16 // max(1, runners))
        .rl_module(model_config=NETWORK | {"max_seq_len": max_seq_len})
        .training(entropy_coeff=0.0, **training)
        .debugging(seed=0)
    )
    algo = config.build_algo()
    try:
        assert train_until(algo, 0.9, iterations) >= 0.9
    finally:
        algo.stop()


@pytest.mark.parametrize("task", [REPEAT, pytest.param(CARTPOLE, marks=pytest.mark.slow)])
def test_the_old_stack_learns(task: tuple[str, dict[str, Any], int, int]) -> None:
    env, training, max_seq_len, iterations = task
    register_envs()
    config = (
        PPOConfig()
        .api_stack(enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False)
        .framework("torch")
        .environment(env)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=16, rollout_fragment_length=256)
        .training(
            model={"custom_model": "s5", "custom_model_config": NETWORK, "max_seq_len": max_seq_len},
            train_batch_size=4096,
            num_epochs=8,
            lambda_=0.95,
            grad_clip=0.5,
            clip_param=0.2,
            use_kl_loss=False,
            vf_clip_param=float("inf"),
            **training,
        )
        .debugging(seed=0)
    )
    algo = config.build_algo()
    try:
        assert train_until(algo, 0.9, iterations) >= 0.9
    finally:
        algo.stop()
