"""sb3-contrib's test that an LSTM policy learns: CartPole without velocities, in Stable-Baselines3.

The settings are those of its ``test_ppo_lstm_performance`` (``tests/test_lstm.py``): seeds from 1 on, an
evaluation of 20 episodes every 5,000 steps, and one of 10 at the end, which has to reach 450 of 500.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize, sync_envs_normalization

from s5_adapters.reproduce.spec import Cell
from s5_adapters.sb3 import S5RecurrentPPO
from s5_adapters.sweeps.curves import best_return

ALGORITHMS = {"RecurrentPPO": RecurrentPPO, "S5RecurrentPPO": S5RecurrentPPO}
NUM_ENVS = 8
EVALUATION_ENVS = 4
EVALUATE_EVERY = 5_000
EVALUATION_EPISODES = 20
LAST_EVALUATION_EPISODES = 10
FIRST_SEED = 1
_SECONDS_PER_STEP = 1e-3


class Evaluations(BaseCallback):
    """A callback that evaluates now and then, and keeps steps, seconds of training and returns."""

    def __init__(self, env: VecNormalize) -> None:
        super().__init__()
        self.curve: dict[str, list[float]] = {"step": [], "seconds": [], "episode_return": []}
        self.seconds = 0.0
        self._env = env

    def _on_training_start(self) -> None:
        self._began = time.perf_counter()

    def _on_step(self) -> bool:
        if self.n_calls % (EVALUATE_EVERY // NUM_ENVS) == 0:
            self._pause()
            sync_envs_normalization(self.training_env, self._env)
            mean, _ = evaluate_policy(self.model, self._env, n_eval_episodes=EVALUATION_EPISODES)
            self.curve["step"].append(self.num_timesteps)
            self.curve["seconds"].append(round(self.seconds, 3))
            assert isinstance(mean, float)
            self.curve["episode_return"].append(mean)
            self._began = time.perf_counter()
        return True

    def _on_training_end(self) -> None:
        self._pause()

    def _pause(self) -> None:
        self.seconds += time.perf_counter() - self._began


def run(cell: Cell, folder: Path) -> dict[str, Any]:
    """Train and evaluate; nothing is kept in ``folder``: a cell that was killed begins anew."""
    torch.set_num_threads(1)
    work, seed = cell.entry.work, cell.seeds[0]
    model = make_model(work, FIRST_SEED + seed, "cuda" if cell.device == "gpu" else "cpu")
    evaluations = Evaluations(_vec_env(EVALUATION_ENVS, training=False, norm_reward=False))
    model.learn(work["steps"], callback=evaluations)
    env = model.get_env()
    assert env is not None
    mean, spread = evaluate_policy(model, env, n_eval_episodes=LAST_EVALUATION_EPISODES)
    assert isinstance(mean, float)
    assert isinstance(spread, float)
    result = {
        "seed": seed,
        "steps": model.num_timesteps,
        "seconds": round(evaluations.seconds, 3),
        "mmer": best_return(evaluations.curve["episode_return"]),
        "final_return": mean,
        "evaluation": {
            "episodes": LAST_EVALUATION_EPISODES,
            "mean": mean,
            "standard_error": spread / math.sqrt(LAST_EVALUATION_EPISODES),
        },
        "curve": evaluations.curve,
    }
    # SB3 compiles within the first steps of training, and those seconds cannot be told apart.
    return {**_sizes(model, work), "compile_seconds": 0.0, "in_one_program": 1, "runs": [result]}


def make_model(work: Mapping[str, Any], seed: int, device: str) -> RecurrentPPO:
    """Build what an entry trains, with its environments."""
    arguments = dict(work["arguments"])
    if work["anneal"]:
        rate = arguments["learning_rate"]
        arguments["learning_rate"] = lambda remaining: rate * remaining
    env = _vec_env(NUM_ENVS)
    policy_kwargs = dict(work["policy_kwargs"])
    return ALGORITHMS[work["algorithm"]](
        work["policy"], env, seed=seed, device=device, policy_kwargs=policy_kwargs, **arguments
    )


def describe(work: Mapping[str, Any]) -> dict[str, Any]:
    """Count what is trained: parameters, numbers in the state that SB3 carries, steps."""
    return _sizes(make_model(work, FIRST_SEED, "cpu"), work)


def estimate(work: Mapping[str, Any]) -> float:
    """Estimate the seconds that one seed takes on two cores, evaluations included, roughly."""
    return float(work["steps"] * _SECONDS_PER_STEP)


def cartpole_without_velocities() -> gym.Env[Any, Any]:
    """Make a CartPole of 500 steps that shows positions only."""
    env = gym.make("CartPole-v1")
    space = env.observation_space
    assert isinstance(space, gym.spaces.Box)
    positions = gym.spaces.Box(space.low[[0, 2]], space.high[[0, 2]])
    return gym.wrappers.TransformObservation(env, lambda obs: obs[[0, 2]], positions)


def _vec_env(num_envs: int, **options: Any) -> VecNormalize:
    return VecNormalize(make_vec_env(cartpole_without_velocities, n_envs=num_envs), **options)


def _sizes(model: RecurrentPPO, work: Mapping[str, Any]) -> dict[str, Any]:
    policy: Any = model.policy
    pair = 2 * math.prod(policy.lstm_hidden_state_shape)
    return {
        "parameters": sum(parameter.numel() for parameter in policy.parameters()),
        "state_numbers": pair * (2 if policy.enable_critic_lstm else 1),
        "steps": work["steps"],
    }
