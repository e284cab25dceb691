"""One policy file, played in Stable-Baselines3 and in RLlib."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from sb3_contrib.common.maskable.evaluation import evaluate_policy as evaluate_masked
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor

from s5_adapters.core.files.weights import load_policy
from s5_adapters.rllib import S5PPOConfig
from s5_adapters.sb3 import JaxVecEnv, S5MaskableRecurrentPPO, S5RecurrentPPO


def in_sb3(path: Path, episodes: int) -> np.ndarray:
    """Returns of fresh episodes in the file's environment, actions drawn."""
    policy = load_policy(path)
    env = VecMonitor(JaxVecEnv(policy.env_id, num_envs=8, seed=1, **policy.env_kwargs))
    masked = policy.config.action_mask
    algorithm = S5MaskableRecurrentPPO if masked else S5RecurrentPPO
    evaluate: Any = evaluate_masked if masked else evaluate_policy
    model = algorithm("S5Policy", env, policy_kwargs={"weights": policy}, seed=1)
    returns, _ = evaluate(
        model, env, n_eval_episodes=episodes, deterministic=False, return_episode_rewards=True
    )
    return np.array(returns)


def in_rllib(path: Path, episodes: int) -> np.ndarray:
    """Returns of fresh episodes in the file's environment, actions drawn.

    One environment: of several, short episodes end first, and too many of them would count.
    """
    policy = load_policy(path)
    config = (
        S5PPOConfig()
        .environment(policy.env_id, env_config=dict(policy.env_kwargs))
        .env_runners(num_env_runners=0, num_envs_per_env_runner=1)
        .rl_module(model_config={"weights": policy, "max_seq_len": 64})
        .debugging(seed=1)
    )
    played = SingleAgentEnvRunner(config=config).sample(num_episodes=episodes)
    return np.array([episode.get_return() for episode in played])


def standard_errors_apart(a: np.ndarray, b: np.ndarray) -> float:
    """The difference of two means in standard errors of it."""
    error = math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    return float(abs(a.mean() - b.mean()) / max(error, 1e-6))
