"""100,000 steps by masks in all three ecosystems: learned, and nothing forbidden done.

The environment ends the episode at a forbidden action, so every episode that lasts its whole length did none.
"""

from __future__ import annotations

import jax
import numpy as np
import pytest
import ray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecMonitor

from integration_tests._rllib import local_ray, quiet_ray
from s5_adapters.purejax import PPOConfig, make_train
from s5_adapters.rllib import S5PPOConfig, register_envs
from s5_adapters.sb3 import JaxVecEnv, S5MaskableRecurrentPPO
from tests.guarded import LENGTH

pytestmark = [pytest.mark.slow, pytest.mark.full_compilation, *quiet_ray]

STEPS = 100_000
LEARNED = 0.9
"""A memoryless player gets 0.5 at most."""
RATE = 3e-3
"""At the start; in all three it comes down to zero. At a constant one returns move between .86 and 1."""
NETWORK = {"d_model": 32, "d_state": 32, "n_layers": 1}


def test_trainer() -> None:
    config = PPOConfig(
        env_id="Guarded",
        memory_config=NETWORK,
        num_envs=32,
        num_steps=64,
        total_steps=STEPS,
        learning_rate=RATE,
    )
    metrics = jax.jit(make_train(config))(jax.random.key(0)).metrics
    assert set(np.asarray(metrics["episode_length"]).tolist()) == {LENGTH}
    assert float(metrics["episode_return"][-1]) >= LEARNED


class Lengths(BaseCallback):
    """Collects the lengths and returns of all episodes."""

    def __init__(self) -> None:
        super().__init__()
        self.episodes: list[tuple[int, float]] = []

    def _on_step(self) -> bool:
        told = (info["episode"] for info in self.locals["infos"] if "episode" in info)
        self.episodes += [(episode["l"], episode["r"]) for episode in told]
        return True


def test_stable_baselines3() -> None:
    env = VecMonitor(JaxVecEnv("Guarded", num_envs=16))
    policy = {**NETWORK, "net_arch": [32]}
    model = S5MaskableRecurrentPPO(
        "S5Policy",
        env,
        n_steps=64,
        batch_size=256,
        learning_rate=lambda left: RATE * left,
        seed=0,
        policy_kwargs=policy,
    )
    watch = Lengths()
    model.learn(STEPS, callback=watch)
    assert {length for length, _ in watch.episodes} == {LENGTH}
    assert np.mean([score for _, score in watch.episodes[-500:]]) >= LEARNED


def test_rllib() -> None:
    with local_ray():
        register_envs()
        config = (
            S5PPOConfig()
            .environment("Guarded")
            .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
            .rl_module(model_config=NETWORK | {"encoder": [32], "max_seq_len": 32})
            .training(train_batch_size_per_learner=2048, minibatch_size=512, lr=[[0, RATE], [STEPS, 0.0]])
            .debugging(seed=0)
        )
        algorithm = config.build_algo()
        try:
            steps, shortest, score = 0, LENGTH, 0.0
            while steps < STEPS:
                told = algorithm.train()["env_runners"]
                steps = int(told["num_env_steps_sampled_lifetime"])
                shortest = min(shortest, int(told["episode_len_min"]))
                score = float(told["episode_return_mean"])
        finally:
            algorithm.stop()
    assert shortest == LENGTH
    assert score >= LEARNED, score
    assert not ray.is_initialized()
