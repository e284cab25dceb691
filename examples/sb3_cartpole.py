"""Velocity-less CartPole with Stable-Baselines3: S5 and, for comparison, SB3's own LSTM policy.

    python examples/sb3_cartpole.py                 # S5, a quarter of a minute
    python examples/sb3_cartpole.py --policy MlpLstmPolicy

Without velocities a policy must remember where the cart and the pole were; one without memory balances for
about 50 steps of 500.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

from s5_adapters.sb3 import S5RecurrentPPO


def cartpole_without_velocities() -> gym.Env:
    """Make a CartPole that shows positions only."""
    env = gym.make("CartPole-v1")
    space = gym.spaces.Box(env.observation_space.low[[0, 2]], env.observation_space.high[[0, 2]])
    return gym.wrappers.TransformObservation(env, lambda obs: obs[[0, 2]], space)


def train(policy: str, steps: int, seed: int, **policy_kwargs: Any) -> tuple[float, float]:
    """Train and evaluate, with more of the policy's arguments where they are given.

    Returns:
        the mean return of 20 episodes (500 is the most), and the seconds that training took.
    """
    env = VecNormalize(make_vec_env(cartpole_without_velocities, n_envs=8, seed=seed))
    model = S5RecurrentPPO(
        policy,
        env,
        n_steps=128,
        batch_size=256,
        n_epochs=10,
        learning_rate=lambda remaining: 7e-4 * remaining,  # a constant one unlearns now and then at the end
        gae_lambda=0.98,
        max_grad_norm=1.0,
        seed=seed,
        policy_kwargs={
            "lstm_hidden_size": 64,
            "n_lstm_layers": 1,
            "net_arch": {"pi": [], "vf": [64]},
            "ortho_init": False,
            **policy_kwargs,
        },
    )
    began = time.perf_counter()
    model.learn(steps)
    seconds = time.perf_counter() - began
    env.training = env.norm_reward = False
    score, _ = evaluate_policy(model, env, n_eval_episodes=20)
    return float(score), seconds


def main() -> None:
    """Train one policy and print its score."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policy", default="S5Policy", choices=["S5Policy", "MlpLstmPolicy"])
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)  # JAX and torch would fight for the cores
    score, seconds = train(options.policy, options.steps, options.seed)
    print(f"{options.policy}: mean return {score:.0f} of 500 after {options.steps} steps in {seconds:.0f} s")


if __name__ == "__main__":
    main()
