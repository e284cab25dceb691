"""RLlib's `model_config` and spaces, read as the core's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import gymnasium as gym

from s5_adapters.core import ActionSpec, ActorCriticConfig
from s5_adapters.core.checks import integer, nearest_names, positive
from s5_adapters.core.files.weights import Policy, as_policy, require_same_network
from s5_adapters.core.memories.defaults import complete, complete_as_formerly, require_dynamics
from s5_adapters.core.memories.memory import memory_class
from s5_adapters.core.network import parts
from s5_adapters.core.network.spaces import ACTION_MASK, action_spec, has_action_mask, observation_shape

__all__ = ["ACTIONS_IN_ENV_UNITS", "ModelConfig", "complete_model_config", "read_model_config"]

_NETWORK = tuple(
    f.name for f in fields(ActorCriticConfig) if f.name not in ("obs_shape", "action", "action_mask")
)
ACTIONS_IN_ENV_UNITS = "actions_in_env_units"
"""True where RLlib hands actions to the environment as the module gives them, clipped to the bounds. Only a
config knows, so `S5PPOConfig` says it."""
_OTHER_KEYS = ("max_seq_len", "weights", "freeze", "lr_scales", "dynamics_lr_scale", ACTIONS_IN_ENV_UNITS)
_PUT_IN_BY_RLLIB = frozenset({"vf_share_layers"})
"""Keys that PPO and APPO add to every `model_config`; `critic_memory` says it here."""


@dataclass(frozen=True)
class ModelConfig:
    """The contents of a `model_config`.

    Attributes:
        network: the network's architecture.
        former: what the same words built before all ecosystems shared their defaults, and what checkpoints
            from then hold; None where a policy says everything.
        max_seq_len: steps in a row of a training batch; None where it was not given.
        weights: the portable policy to start from, if one was given.
        freeze: parts that do not learn.
        lr_scales: what multiplies the learning rate of parts.
        dynamics_lr_scale: what multiplies that of the memory's dynamics besides.
    """

    network: ActorCriticConfig
    former: ActorCriticConfig | None
    max_seq_len: int | None
    weights: Policy | None
    freeze: tuple[str, ...]
    lr_scales: Mapping[str, float]
    dynamics_lr_scale: float


def read_model_config(
    given: Mapping[str, Any], observation_space: gym.Space[Any] | None, action_space: gym.Space[Any] | None
) -> ModelConfig:
    """Read a `model_config` for these spaces.

    Args:
        given: `memory`, `encoder`, ... as in `ActorCriticConfig`; the memory's own settings (`d_model`, ...)
            beside them or under `memory_config`; `max_seq_len`; `weights`, a portable policy or its file,
            which also sets everything of the network that is left out; `freeze`, a list of parts ("encoder",
            "memory", "torsos", "heads"); `lr_scales`, a mapping of parts to what multiplies their learning
            rate, and `dynamics_lr_scale`, what multiplies that of the memory's dynamics besides;
            `actions_in_env_units`. What of the memory nobody sets has the defaults that all ecosystems share.
        observation_space: a Box `(features,)`, or `(height, width, channels)` for images; or a Dict of such a
            Box, whatever its name, and `action_mask`, a Box or MultiBinary with one number for each action.
        action_space: Discrete, MultiDiscrete, MultiBinary or a one-dimensional Box.

    Raises:
        ValueError: an unknown key or a wrong value (with the nearest names), another kind of space, or
            weights of another network or other spaces.
    """
    weights = None if given.get("weights") is None else as_policy(given["weights"])
    start = {} if weights is None else {name: getattr(weights.config, name) for name in _NETWORK}
    memory = given.get("memory", start.get("memory", ActorCriticConfig.memory))
    own = [f.name for f in fields(memory_class(memory))]
    nested = given.get("memory_config", {})
    if not isinstance(nested, Mapping):
        raise ValueError(f"model_config['memory_config']: got {nested!r}, expected a mapping")
    network: dict[str, Any] = {**start, "memory": memory}
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
        elif name not in _OTHER_KEYS and name not in _PUT_IN_BY_RLLIB:
            known = nearest_names(name, (*own, *_NETWORK, *_OTHER_KEYS))
            raise ValueError(f"model_config: got {name!r}, expected some of {known}")
    if weights is not None and memory == weights.config.memory:
        memory_config = dict(weights.config.memory_config) | memory_config
    network["memory_config"] = complete(memory, memory_config)
    max_seq_len = given.get("max_seq_len")
    action = _action_spec(action_space)
    config = ActorCriticConfig(
        obs_shape=_obs_shape(_unmasked(observation_space, action)),
        action=action,
        action_mask=has_action_mask(observation_space),
        **network,
    )
    dynamics_lr_scale = positive("model_config['dynamics_lr_scale']", given.get("dynamics_lr_scale", 1.0))
    require_dynamics(memory, dynamics_lr_scale)
    former = None
    if weights is None:
        former = config.replace(memory_config=complete_as_formerly(memory, memory_config))
    else:
        require_same_network(weights.config, config)
    return ModelConfig(
        network=config,
        former=former,
        max_seq_len=None if max_seq_len is None else integer("model_config['max_seq_len']", max_seq_len),
        weights=weights,
        freeze=parts.parts("model_config['freeze']", given.get("freeze", ())),
        lr_scales=parts.part_scales("model_config['lr_scales']", given.get("lr_scales", {})),
        dynamics_lr_scale=dynamics_lr_scale,
    )


def complete_model_config(given: Mapping[str, Any], network: ActorCriticConfig) -> dict[str, Any]:
    """Return a `model_config` with the rest of a network's memory under `memory_config`."""
    unsaid = {name: value for name, value in dict(network.memory_config).items() if name not in given}
    return {**given, "memory": network.memory, "memory_config": unsaid}


def _unmasked(space: gym.Space[Any] | None, action: ActionSpec) -> gym.Space[Any] | None:
    """Return the space of what is no mask, once the mask has been found to fit the actions."""
    if not isinstance(space, gym.spaces.Dict) or not has_action_mask(space):
        return space
    mask, expected = space.spaces[ACTION_MASK], (action.num_inputs,)
    if len(space.spaces) != 2 or mask.shape != expected:
        raise ValueError(
            f"observation space: got {space}, expected action_mask of shape {expected} for {action} and one "
            "Box"
        )
    return next(part for name, part in space.spaces.items() if name != ACTION_MASK)


def _obs_shape(space: gym.Space[Any] | None) -> tuple[int, ...]:
    if not isinstance(space, gym.spaces.Box) or len(space.shape) not in (1, 3):
        raise ValueError(
            f"observation space: got {space}, expected a Box of shape (features,) or (height, width, "
            "channels); RLlib's FlattenObservations connector makes a vector of any other"
        )
    return observation_shape(space)


def _action_spec(space: gym.Space[Any] | None) -> ActionSpec:
    """Read the action space; a Box must be a vector of floats, since RLlib's distributions are of vectors."""
    if isinstance(space, gym.spaces.Box) and (len(space.shape) != 1 or space.low.dtype.kind != "f"):
        raise ValueError(f"action space: got {space}, expected a one-dimensional Box of floats")
    return action_spec(space)
