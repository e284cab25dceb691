"""POPGym's RepeatPrevious in JAX, trained with Stable-Baselines3.

    python examples/sb3_repeat_previous.py                 # S5
    python examples/sb3_repeat_previous.py --policy MlpLstmPolicy
    python examples/sb3_repeat_previous.py --memory feedforward

The agent sees playing cards and must name the suit it saw three cards ago. Guessing scores -0.5, perfect
memory 1.0. All environments are stepped by one compiled call.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor

from s5_adapters.sb3 import JaxVecEnv, S5RecurrentPPO


def train(policy: str, steps: int, seed: int, **policy_kwargs: Any) -> tuple[float, float]:
    """Train and evaluate, with more of the policy's arguments where they are given.

    Returns:
        the mean return of 100 episodes (1.0 is the most), and the seconds that training took.
    """
    env = VecMonitor(JaxVecEnv("RepeatPreviousEasy", num_envs=32, seed=seed))
    layers = 2 if policy == "S5Policy" else 1
    model = S5RecurrentPPO(
        policy,
        env,
        n_steps=104,
        batch_size=832,
        n_epochs=4,
        learning_rate=2e-3,
        gamma=0.9,
        ent_coef=0.01,
        seed=seed,
        policy_kwargs={"lstm_hidden_size": 64, "n_lstm_layers": layers, "net_arch": [64], **policy_kwargs},
    )
    began = time.perf_counter()
    model.learn(steps)
    seconds = time.perf_counter() - began
    score, _ = evaluate_policy(model, env, n_eval_episodes=100)
    return float(score), seconds


def main() -> None:
    """Train one policy and print its score."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policy", default="S5Policy", choices=["S5Policy", "MlpLstmPolicy"])
    parser.add_argument("--memory", default="s5", help="S5Policy's memory, a name of the registry")
    parser.add_argument("--steps", type=int, default=500_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)  # JAX and torch would fight for the cores
    own = {"memory": options.memory} if options.policy == "S5Policy" else {}
    score, seconds = train(options.policy, options.steps, options.seed, **own)
    name = f"S5Policy with {options.memory}" if own else options.policy
    print(f"{name}: mean return {score:.2f} of 1.00 after {options.steps} steps in {seconds:.0f} s")


if __name__ == "__main__":
    main()
