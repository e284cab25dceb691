"""Train S5 with RLlib's PPO on a task that needs memory, on the new or the old API stack.

python examples/rllib_train.py                                    # recall a card: 0.9 of 1 in a minute or two
python examples/rllib_train.py --env PositionOnlyCartPoleEasy     # balance a pole without seeing velocities
python examples/rllib_train.py --runners 2 --checkpoint runs/rllib
python examples/rllib_train.py --old-stack
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import ray
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig

from s5_adapters.rllib import S5PPOConfig, register_envs

# Smaller and with slower initial time steps than the defaults: docs/rllib.md has what it reached with them.
NETWORK = {
    "memory": "s5",
    "d_model": 64,
    "d_state": 64,
    "n_layers": 1,
    "dt_min": 0.001,
    "dt_max": 0.1,
    "encoder": [64],
    "actor_torso": [64],
    "critic_torso": [64],
}
TASKS: dict[str, tuple[int, dict[str, Any]]] = {
    # An episode of 51 steps and RLlib's own one at the end are one row. No action changes what follows.
    "RepeatPreviousEasy": (52, {"gamma": 0.0, "lr": 2e-3, "minibatch_size": 1024}),
    "PositionOnlyCartPoleEasy": (32, {"gamma": 0.97, "lr": 2e-3, "minibatch_size": 512}),
}
"""Steps in a training row, and PPO's settings."""


def new_stack(env: str, runners: int) -> AlgorithmConfig:
    """Configure the new stack: `S5PPOConfig` brings the module and what a recurrent network needs."""
    max_seq_len, training = TASKS[env]
    return (
        S5PPOConfig()
        .environment(env)
        .env_runners(num_env_runners=runners, num_envs_per_env_runner=16 // max(1, runners))
        .rl_module(model_config=NETWORK | {"max_seq_len": max_seq_len})
        .training(entropy_coeff=0.0, **training)
    )


def old_stack(env: str, runners: int) -> AlgorithmConfig:
    """Configure the old stack, with the same network as a custom model."""
    max_seq_len, training = TASKS[env]
    register_envs()
    return (
        PPOConfig()
        .api_stack(enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False)
        .framework("torch")
        .environment(env)
        .env_runners(num_env_runners=runners, num_envs_per_env_runner=16 // max(1, runners))
        .training(
            model={"custom_model": "s5", "custom_model_config": NETWORK, "max_seq_len": max_seq_len},
            train_batch_size=4096,
            num_epochs=8,
            lambda_=0.95,
            grad_clip=0.5,
            clip_param=0.2,
            vf_clip_param=float("inf"),
            **training,
        )
    )


def main() -> None:
    """Train until the target is reached, then save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", choices=TASKS, default="RepeatPreviousEasy")
    parser.add_argument("--runners", type=int, default=0, help="env runners; 0 samples in this process")
    parser.add_argument("--old-stack", action="store_true")
    parser.add_argument("--target", type=float, default=0.9, help="stop at this mean return, of 1")
    parser.add_argument("--iterations", type=int, default=100, help="stop after this many at the latest")
    parser.add_argument("--checkpoint", type=Path, help="where to save the trained algorithm")
    options = parser.parse_args()

    torch.set_num_threads(1)
    ray.init(num_cpus=max(1, options.runners), include_dashboard=False, address="local", log_to_driver=False)
    make_config = old_stack if options.old_stack else new_stack
    algo = make_config(options.env, options.runners).debugging(seed=0).build_algo()
    try:
        for iteration in range(1, options.iterations + 1):
            result = algo.train()
            mean = result["env_runners"].get("episode_return_mean", float("nan"))
            print(f"iteration {iteration:3d}   mean return {mean:6.3f}", flush=True)
            if mean >= options.target:
                break
        if options.checkpoint is not None:
            print("saved", algo.save_to_path(options.checkpoint.resolve()))
    finally:
        algo.stop()
        ray.shutdown()


if __name__ == "__main__":
    main()
