"""MetaCartPole with Stable-Baselines3: the return of each trial of a task, while an agent learns to adapt.

    python examples/sb3_meta_cartpole.py                   # S5
    python examples/sb3_meta_cartpole.py --memory gru

A task is 16 trials of a CartPole behind a projection that is the task's own. An episode is the whole task:
the memory is kept from trial to trial and begins anew with the next task.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import Any

import torch
from stable_baselines3.common.callbacks import BaseCallback

from s5_adapters.sb3 import JaxVecEnv, S5RecurrentPPO


class ReturnByTrial(BaseCallback):
    """Logs the mean return of each trial that ended in a rollout; ``last`` holds the latest."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[int, float] = {}
        self._ended: dict[int, list[float]] = defaultdict(list)

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "trial" in info:
                self._ended[info["trial"]].append(info["trial_return"])
        return True

    def _on_rollout_end(self) -> None:
        for trial, returns in sorted(self._ended.items()):
            self.last[trial] = sum(returns) / len(returns)
            self.logger.record(f"trials/{trial:02d}", self.last[trial])
        self._ended.clear()


def train(
    steps: int, seed: int = 0, memory: str = "s5", num_envs: int = 32, n_steps: int = 512, **env: Any
) -> dict[int, float]:
    """Train, and return the mean return of each trial, the latest of each."""
    model = S5RecurrentPPO(
        "S5Policy",
        JaxVecEnv("MetaCartPole-v0", num_envs=num_envs, seed=seed, previous_action=True, **env),
        n_steps=n_steps,
        batch_size=num_envs * n_steps // 4,
        n_epochs=4,
        learning_rate=1e-3,
        gae_lambda=0.95,
        seed=seed,
        policy_kwargs={"memory": memory, "lstm_hidden_size": 64, "n_lstm_layers": 2, "net_arch": [64]},
    )
    by_trial = ReturnByTrial()
    model.learn(steps, callback=by_trial)
    return by_trial.last


def main() -> None:
    """Train one memory and print its return by trial."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--memory", default="s5", help="a name of the registry")
    parser.add_argument("--steps", type=int, default=2_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)  # JAX and torch would fight for the cores
    for trial, mean in sorted(train(options.steps, options.seed, options.memory).items()):
        print(f"trial {trial:2d}   mean return {mean:.3f} of 1")


if __name__ == "__main__":
    main()
