"""Stable-Baselines3: the stock `RecurrentPPO`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecMonitor
from torch import nn

from s5_adapters.bench.checks import assert_same_parameters
from s5_adapters.bench.record import Recorder
from s5_adapters.bench.spec import Cell
from s5_adapters.core.files.weights import load_policy
from s5_adapters.sb3 import JaxVecEnv, S5Policy

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU}


class Episodes(BaseCallback):
    """A callback that reports every update to the recorder, with the returns of its rollout's episodes."""

    def __init__(self, record: Recorder) -> None:
        super().__init__()
        self.record = record
        self.returns: list[float] = []

    def _on_step(self) -> bool:
        self.returns += [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
        return True


def run(cell: Cell, weights: Path | None, record: Recorder) -> None:
    """Train with the stock algorithm."""
    record.differences.append(
        "minibatches are episodes cut and padded, from one point of the rollout on, not whole environments"
    )
    train(RecurrentPPO, cell, weights, record)


def train(
    algorithm: type[RecurrentPPO], cell: Cell, weights: Path | None, record: Recorder, **arguments: Any
) -> None:
    """Train with one of the two algorithms."""
    torch.set_num_threads(1)
    config = cell.config
    env = VecMonitor(
        JaxVecEnv(config.env_id, num_envs=config.num_envs, seed=cell.seed, **dict(config.env_kwargs))
    )
    rates = {"lr_scales": config.lr_scales, "dynamics_lr_scale": config.dynamics_lr_scale}
    policy = {"weights": str(weights), **rates} if weights else _own_lstm(cell, record)
    model = algorithm(
        "S5Policy" if weights else "MlpLstmPolicy",
        env,
        n_steps=config.num_steps,
        batch_size=config.steps_per_update // config.num_minibatches,
        n_epochs=config.num_epochs,
        learning_rate=config.learning_rate,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_range,
        normalize_advantage=config.normalize_advantages,
        ent_coef=config.entropy_coef,
        vf_coef=config.value_coef / 2,  # SB3's value loss is not halved
        max_grad_norm=math.inf if config.max_grad_norm is None else config.max_grad_norm,
        policy_kwargs={**policy, "optimizer_kwargs": {"eps": config.adam_eps}},
        seed=cell.seed,
        device="cuda" if cell.device == "gpu" else "cpu",
        **arguments,
    )
    if weights:
        assert isinstance(model.policy, S5Policy)
        assert_same_parameters(load_policy(weights), model.policy.to_policy().params)
    record.facts["parameters"] = sum(parameter.numel() for parameter in model.policy.parameters())

    callback = Episodes(record)
    learn = record.timed("update", model.train)

    def train_and_tell() -> None:
        learn()
        record.updated(model.num_timesteps, callback.returns)
        callback.returns = []

    # SB3 has no callback around either.
    model.collect_rollouts = record.timed("collect", model.collect_rollouts)  # type: ignore[method-assign]
    model.train = train_and_tell  # type: ignore[method-assign]
    record.start()
    model.learn(config.num_updates * config.steps_per_update, callback=callback)


def _own_lstm(cell: Cell, record: Recorder) -> dict[str, Any]:
    config = cell.config
    record.differences.append(
        "own-lstm: no dense layers stand before the LSTM, which the critic reads but does not train"
    )
    return {
        "lstm_hidden_size": config.memory_config["d_model"],
        "n_lstm_layers": config.memory_config["n_layers"],
        "shared_lstm": True,
        "enable_critic_lstm": False,
        "net_arch": {"pi": list(config.actor_torso), "vf": list(config.critic_torso)},
        "activation_fn": ACTIVATIONS[config.activation],
    }
