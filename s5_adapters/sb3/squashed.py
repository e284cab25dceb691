"""Squashed actions, which lie in [-1, 1], in the environment's units and back.

sb3-contrib's rollouts hand an environment what `forward` returns, and SB3's `predict` what the distribution
gives, scaled: `forward` has to scale, or a policy plays other actions than it was trained on.
"""

from __future__ import annotations

from typing import Any

import torch as th
from gymnasium import spaces

__all__ = ["from_env_units", "to_env_units"]


def to_env_units(actions: th.Tensor, space: spaces.Space[Any]) -> th.Tensor:
    """Scale actions, flat `(..., action_dim)`, from [-1, 1] to the bounds of a space."""
    middle, half = _middle_and_half(actions, space)
    return middle + half * actions


def from_env_units(actions: th.Tensor, space: spaces.Space[Any]) -> th.Tensor:
    """Scale actions, flat `(..., action_dim)`, from the bounds of a space to [-1, 1]."""
    middle, half = _middle_and_half(actions, space)
    return (actions - middle) / half


def _middle_and_half(actions: th.Tensor, space: spaces.Space[Any]) -> tuple[th.Tensor, th.Tensor]:
    assert isinstance(space, spaces.Box)  # SB3 squashes no other
    low, high = (th.as_tensor(bound.ravel(), device=actions.device) for bound in (space.low, space.high))
    return (high + low) / 2, (high - low) / 2
