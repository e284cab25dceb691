"""A policy of the jitted trainer scores the same where Stable-Baselines3 and RLlib evaluate it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor

from s5_adapters.core.files.weights import load_policy, save_policy
from s5_adapters.purejax import PPOConfig, Trainer, restore_policy
from s5_adapters.rllib import S5PPOConfig
from s5_adapters.sb3 import JaxVecEnv, S5RecurrentPPO

EPISODES = 200

pytestmark = [
    pytest.mark.slow,  # trains for about a minute
    pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*Overriding environment rllib-single-agent-env-v0:UserWarning"),
]


def in_sb3(path: Path, env_id: str) -> np.ndarray:
    env = VecMonitor(JaxVecEnv(env_id, num_envs=8, seed=1))
    model = S5RecurrentPPO("S5Policy", env, policy_kwargs={"weights": path})
    returns, _ = evaluate_policy(
        model, env, n_eval_episodes=EPISODES, deterministic=False, return_episode_rewards=True
    )
    return np.array(returns)


def in_rllib(path: Path, env_id: str) -> np.ndarray:
    config = (
        S5PPOConfig()
        .environment(env_id)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=8)
        .rl_module(model_config={"weights": load_policy(path), "max_seq_len": 64})
        .debugging(seed=1)
    )
    episodes = SingleAgentEnvRunner(config=config).sample(num_episodes=EPISODES)
    return np.array([episode.get_return() for episode in episodes])


@pytest.mark.parametrize("env_id", ["RepeatPreviousEasy", "PositionOnlyCartPoleEasy"])
def test_it_scores_the_same_in_all_three(env_id: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    normalize = env_id == "PositionOnlyCartPoleEasy"
    config = PPOConfig(env_id=env_id, total_steps=150_000, normalize_observations=normalize)
    Trainer(config, run_dir=tmp_path / "run").run()
    restored = restore_policy(tmp_path / "run")
    path = tmp_path / "policy.safetensors"
    save_policy(path, restored.to_portable())

    mine = restored.evaluate(EPISODES).returns
    for returns in (in_sb3(path, env_id), in_rllib(path, env_id)):
        assert len(returns) >= EPISODES
        error = math.sqrt(mine.var(ddof=1) / len(mine) + returns.var(ddof=1) / len(returns))
        assert abs(returns.mean() - mine.mean()) <= 2 * error + 1e-6
