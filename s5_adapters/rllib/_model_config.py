"""RLlib's `model_config` and spaces, read as the core's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import gymnasium as gym
import numpy as np

from s5_adapters.core import ActionSpec, ActorCriticConfig, Box, Discrete, MultiDiscrete
from s5_adapters.core.checks import integer, nearest_names
from s5_adapters.core.memory import memory_class

__all__ = ["ModelConfig", "read_model_config"]

_NETWORK = tuple(f.name for f in fields(ActorCriticConfig) if f.name not in ("obs_shape", "action"))
_PUT_IN_BY_RLLIB = frozenset({"vf_share_layers"})
"""What PPO and APPO add to every `model_config`; `critic_memory` says it here."""


@dataclass(frozen=True)
class ModelConfig:
    """What a `model_config` says.

    Attributes:
        network: the network's architecture.
        max_seq_len: steps in a row of a training batch; None where it was not given.
    """

    network: ActorCriticConfig
    max_seq_len: int | None


def read_model_config(
    given: Mapping[str, Any], observation_space: gym.Space | None, action_space: gym.Space | None
) -> ModelConfig:
    """Read a `model_config` for these spaces.

    Args:
        given: `memory`, `encoder`, ... as in `ActorCriticConfig`; the memory's own settings (`d_model`, ...)
            beside them or under `memory_config`; `max_seq_len`.
        observation_space: a Box `(features,)`, or `(height, width, channels)` for images.
        action_space: Discrete, MultiDiscrete or a one-dimensional Box.

    Raises:
        ValueError: an unknown key or a wrong value (with the nearest names), or another kind of space.
    """
    memory = given.get("memory", ActorCriticConfig.memory)
    own = [f.name for f in fields(memory_class(memory))]
    nested = given.get("memory_config", {})
    if not isinstance(nested, Mapping):
        raise ValueError(f"model_config['memory_config']: got {nested!r}, expected a mapping")
    network: dict[str, Any] = {}
    memory_config = dict(nested)
    for name, value in given.items():
        if name in own:
            if name in nested:
                raise ValueError(
                    f"model_config: got {name!r} twice, expected it either there or in memory_config"
                )
            memory_config[name] = value
        elif name in _NETWORK:
            network[name] = value
        elif name != "max_seq_len" and name not in _PUT_IN_BY_RLLIB:
            known = nearest_names(name, (*own, *_NETWORK, "max_seq_len"))
            raise ValueError(f"model_config: got {name!r}, expected some of {known}")
    network["memory_config"] = memory_config
    max_seq_len = given.get("max_seq_len")
    return ModelConfig(
        network=ActorCriticConfig(
            obs_shape=_obs_shape(observation_space), action=_action_spec(action_space), **network
        ),
        max_seq_len=None if max_seq_len is None else integer("model_config['max_seq_len']", max_seq_len),
    )


def _obs_shape(space: gym.Space | None) -> tuple[int, ...]:
    if not isinstance(space, gym.spaces.Box) or len(space.shape) not in (1, 3):
        raise ValueError(
            f"observation space: got {space}, expected a Box of shape (features,) or (height, width, "
            "channels); RLlib's FlattenObservations connector makes a vector of any other"
        )
    return tuple(map(int, space.shape))


def _action_spec(space: gym.Space | None) -> ActionSpec:
    match space:
        case gym.spaces.Discrete(start=0):
            return Discrete(int(space.n))
        case gym.spaces.MultiDiscrete() if space.nvec.ndim == 1 and not np.any(space.start):
            return MultiDiscrete(tuple(map(int, space.nvec)))
        case gym.spaces.Box() if len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating):
            return Box(tuple(map(float, space.low)), tuple(map(float, space.high)))
    raise ValueError(
        f"action space: got {space}, expected Discrete or one-dimensional MultiDiscrete, both counted from "
        "0, or a one-dimensional Box of floats"
    )
