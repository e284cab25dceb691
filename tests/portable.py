"""A portable policy in each of the three: what it gives on the same observations, with resets."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import jax
import numpy as np
import torch
from gymnasium import spaces
from ray.rllib.core.columns import Columns
from sb3_contrib.common.recurrent.type_aliases import RNNStates

from s5_adapters.core import ActorCritic, ActorCriticConfig, Box, Discrete, MultiDiscrete
from s5_adapters.core.files.weights import ObservationStatistics, Policy
from s5_adapters.rllib import S5RLModule
from s5_adapters.sb3 import CnnS5Policy, S5Policy

Outputs = tuple[np.ndarray, np.ndarray]
"""The distribution's inputs `(T, B, K)` and the values `(T, B)`."""


def make_policy(seed: int = 0, statistics: bool = False, **changes: Any) -> Policy:
    """Random weights that use every part of the network, the distributions' scale included."""
    settings: dict[str, Any] = {
        "obs_shape": (3,),
        "action": Discrete(4),
        "memory_config": {"d_model": 8, "d_state": 8, "n_layers": 2},
        "encoder": (6,),
        "actor_torso": (7,),
        "critic_torso": (5,),
        "activation": "tanh",
    } | changes
    config = ActorCriticConfig(**settings)
    params = jax.tree.map(np.array, ActorCritic(config).init(jax.random.key(seed)))
    heads, rng = params["heads"], np.random.default_rng(seed)
    for name in ("actor", "critic"):  # the heads begin near zero, where nothing would tell them apart
        heads[name]["kernel"] = rng.normal(size=heads[name]["kernel"].shape)
        heads[name]["bias"] = rng.normal(size=heads[name]["bias"].shape)
    if "log_std" in heads:
        heads["log_std"] = rng.normal(size=heads["log_std"].shape)
    params = jax.tree.map(lambda x: np.asarray(x, np.float32), params)
    normal = None
    if statistics:
        shape = config.obs_shape
        mean, variance = rng.normal(size=shape), rng.uniform(0.5, 2.0, shape)
        normal = ObservationStatistics(
            mean.astype(np.float32), variance.astype(np.float32), 1e-6, 2.5, samples=77.0
        )
    return Policy(config, params, normal)


def spaces_of(config: ActorCriticConfig, channels_first: bool = False) -> tuple[gym.Space, gym.Space]:
    """Gymnasium's spaces for a network."""
    if config.is_image:
        height, width, channels = config.obs_shape
        shape = (channels, height, width) if channels_first else config.obs_shape
        obs: gym.Space = spaces.Box(0, 255, shape, np.uint8)
    else:
        obs = spaces.Box(-np.inf, np.inf, config.obs_shape)
    match config.action:
        case Discrete(n):
            return obs, spaces.Discrete(n)
        case MultiDiscrete(nvec):
            return obs, spaces.MultiDiscrete(nvec)
        case Box(low, high):
            return obs, spaces.Box(np.array(low, np.float32), np.array(high, np.float32))


def in_sb3(policy: Policy | str, config: ActorCriticConfig, **arguments: Any) -> S5Policy:
    """An `S5Policy` that starts from the weights."""
    cls = CnnS5Policy if config.is_image else S5Policy
    return cls(*spaces_of(config, channels_first=True), lambda _: 1e-3, weights=policy, **arguments)


def in_rllib(policy: Policy | str, config: ActorCriticConfig, **model_config: Any) -> S5RLModule:
    """An `S5RLModule` that starts from the weights."""
    obs, action = spaces_of(config)
    given = {"weights": policy, "max_seq_len": 8, "actions_in_env_units": True} | model_config
    return S5RLModule(observation_space=obs, action_space=action, inference_only=False, model_config=given)


def observe(
    config: ActorCriticConfig, steps: int, batch: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Observations `(T, B, *obs_shape)` and episode starts `(T, B)`, one in twelve."""
    rng = np.random.default_rng(seed)
    shape = (steps, batch, *config.obs_shape)
    obs = rng.integers(0, 256, shape, np.uint8) if config.is_image else rng.normal(size=shape)
    starts = rng.random((steps, batch)) < 1 / 12
    starts[0] = True
    return obs if config.is_image else obs.astype(np.float32), starts


def core_outputs(policy: Policy, obs: np.ndarray, starts: np.ndarray) -> Outputs:
    state, found = policy.initial_state(obs.shape[1]), []
    for x, start in zip(obs, starts, strict=True):
        inputs, value, state = policy.evaluate(x, state, start)
        found.append((np.asarray(inputs), np.asarray(value)))
    return tuple(np.stack(part) for part in zip(*found, strict=True))  # type: ignore[return-value]


@torch.no_grad()
def sb3_outputs(policy: S5Policy, obs: np.ndarray, starts: np.ndarray) -> Outputs:
    layers, _, width = policy.lstm_hidden_state_shape
    zeros = (torch.zeros(layers, obs.shape[1], width), torch.zeros(layers, obs.shape[1], width))
    states, found = RNNStates(zeros, zeros), []
    if obs.ndim == 5:
        obs = np.moveaxis(obs, -1, 2)
    for x, start in zip(obs, starts, strict=True):
        x, start = torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(start).float()
        distribution, _ = policy.get_distribution(x, states.pi, start)
        _, values, _, states = policy.forward(x, states, start)
        found.append((_inputs(distribution), values[:, 0].numpy()))
    return tuple(np.stack(part) for part in zip(*found, strict=True))  # type: ignore[return-value]


def _inputs(distribution: Any) -> np.ndarray:
    inner = distribution.distribution
    if isinstance(inner, list):
        return torch.cat([part.logits for part in inner], dim=1).numpy()
    if isinstance(inner, torch.distributions.Normal):
        return torch.cat([inner.mean, inner.stddev.log()], dim=1).numpy()
    return inner.logits.numpy()


@torch.no_grad()
def rllib_outputs(module: S5RLModule, obs: np.ndarray, starts: np.ndarray) -> Outputs:
    empty = {name: torch.from_numpy(leaf) for name, leaf in module.get_initial_state().items()}
    state = {name: leaf.repeat(obs.shape[1], 1) for name, leaf in empty.items()}
    found = []
    for x, start in zip(obs, starts, strict=True):
        first = torch.from_numpy(start)[:, None]
        state = {name: torch.where(first, empty[name], leaf) for name, leaf in state.items()}
        x = torch.from_numpy(x)
        batch = {Columns.OBS: x[:, None] if state else x, Columns.STATE_IN: state}
        values = module.compute_values(batch)
        outputs = module.forward_inference(batch)
        state = outputs.get(Columns.STATE_OUT, {})
        inputs = outputs[Columns.ACTION_DIST_INPUTS]
        found.append(((inputs[:, 0] if state else inputs).numpy().copy(), values.reshape(-1).numpy().copy()))
    return tuple(np.stack(part) for part in zip(*found, strict=True))  # type: ignore[return-value]


def comparable(action: Any, inputs: np.ndarray) -> np.ndarray:
    """Distribution parameters that mean the same in all three: logits are free of a constant each."""
    if isinstance(action, Box):
        return inputs
    sizes = [action.n] if isinstance(action, Discrete) else list(action.nvec)
    parts = np.split(inputs, np.cumsum(sizes)[:-1], axis=-1)
    return np.concatenate([part - np.logaddexp.reduce(part, -1, keepdims=True) for part in parts], axis=-1)


def assert_agree(policy: Policy, one: Outputs, other: Outputs, atol: float = 1e-5) -> None:
    a, b = (comparable(policy.config.action, inputs) for inputs in (one[0], other[0]))
    np.testing.assert_allclose(a, b, rtol=0, atol=atol * max(1.0, np.abs(a).max()))
    np.testing.assert_allclose(one[1], other[1], rtol=0, atol=atol * max(1.0, np.abs(one[1]).max()))
