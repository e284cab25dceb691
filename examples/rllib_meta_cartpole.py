"""MetaCartPole with RLlib: the return of each trial of a task, while an agent learns to adapt.

python examples/rllib_meta_cartpole.py
python examples/rllib_meta_cartpole.py --memory gru --iterations 200

A task is 16 trials of a CartPole behind a projection that is the task's own. An episode is the whole task:
the memory is kept from trial to trial and begins anew with the next task.
"""

from __future__ import annotations

import argparse
from typing import Any

import ray
import torch

from s5_adapters.rllib import S5PPOConfig

NETWORK = {"d_model": 64, "n_layers": 2, "encoder": [64], "actor_torso": [64], "critic_torso": [64]}


def log_trials(*, episode: Any, metrics_logger: Any, **_: Any) -> None:
    """Log the return of a trial where the last step ended it."""
    info = episode.get_infos(-1)
    if info.get("trial_ended", False):
        metrics_logger.log_value(("trials", f"{int(info['trial']):02d}"), float(info["trial_return"]))


def config(memory: str = "s5", num_envs: int = 32, **env: Any) -> S5PPOConfig:
    """Configure PPO; rows of 128 steps begin with the memory that acting left them."""
    return (
        S5PPOConfig()
        .environment("MetaCartPole-v0", env_config={"previous_action": True, **env})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=num_envs)
        .rl_module(model_config={"memory": memory, "max_seq_len": 128, **NETWORK})
        .training(lr=1e-3, gamma=0.99, lambda_=0.95, train_batch_size_per_learner=16384, num_epochs=4)
        .callbacks(on_episode_step=log_trials)
    )


def by_trial(result: dict[str, Any]) -> dict[str, float]:
    """Return the mean return of each trial in the result of an iteration."""
    return dict(sorted(result["env_runners"].get("trials", {}).items()))


def main() -> None:
    """Train, and print the return by trial of every iteration."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", default="s5", help="a name of the registry")
    parser.add_argument("--iterations", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    ray.init(num_cpus=1, include_dashboard=False, address="local", log_to_driver=False)
    algo = config(options.memory).debugging(seed=0).build_algo()
    try:
        for iteration in range(1, options.iterations + 1):
            returns = by_trial(algo.train())
            print(f"iteration {iteration:3d}  ", *(f"{mean:.2f}" for mean in returns.values()), flush=True)
    finally:
        algo.stop()
        ray.shutdown()


if __name__ == "__main__":
    main()
