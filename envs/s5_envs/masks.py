"""Masks of the actions that are allowed, in a Dict observation's entry ``action_mask``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from s5_envs import spaces
from s5_envs.interface import PyTree, Step
from s5_envs.wrappers import Wrapper

MASK = "action_mask"
OBSERVATION = "observation"


@dataclass(frozen=True)
class ActionMask(Wrapper):
    """Observations with the mask of the actions that the rules leave: ``{"action_mask", "observation"}``.

    The mask is ``(actions,)`` int8, 1 where an action is allowed. It stands with the observation that is
    acted on next; where an episode ended, ``final_observation`` has a mask that allows everything, since
    nothing is chosen there.

    Args:
        env: an environment with Discrete actions whose innermost has a method ``action_mask(state, params)``
            that returns ``(actions,)`` bool, of a multi-discrete action all combinations row by row (see
            ``FlattenAction``).
    """

    def __post_init__(self) -> None:
        """Check that there are masks for these actions."""
        space = super().action_space()
        if not hasattr(self.unwrapped, MASK) or not isinstance(space, spaces.Discrete):
            raise ValueError(
                f"{self.name}: got action_mask with actions {space!r}, expected Discrete actions and an "
                "environment with a method action_mask(state, params), as Battleship, Concentration and "
                "MineSweeper have"
            )

    def observation_space(self, params: PyTree = None) -> spaces.Dict:
        """Return the Dict of mask and observation."""
        mask = spaces.Box(0, 1, (self.num_actions,), jnp.int8)
        return spaces.Dict({MASK: mask, OBSERVATION: super().observation_space(params)})

    def reset(self, key: jax.Array, params: PyTree = None) -> tuple[PyTree, PyTree]:
        """Begin an episode."""
        obs, state = self.env.reset(key, params)
        return {MASK: self._mask(state, params), OBSERVATION: obs}, state

    def step(self, key: jax.Array, state: PyTree, action: PyTree, params: PyTree = None) -> Step:
        """Take one step."""
        obs, state, reward, terminated, truncated, info = self.env.step(key, state, action, params)
        mask = self._mask(state, params)
        final = {
            MASK: jnp.where(terminated | truncated, jnp.ones_like(mask), mask),
            OBSERVATION: info["final_observation"],
        }
        info = {**info, "final_observation": final}
        return {MASK: mask, OBSERVATION: obs}, state, reward, terminated, truncated, info

    def _mask(self, state: PyTree, params: PyTree) -> jax.Array:
        params = self.default_params if params is None else params
        allowed: jax.Array = self.unwrapped.action_mask(self.unwrapped_state(state), params)
        return allowed.astype(jnp.int8)


@dataclass(frozen=True)
class SplitActionMask(Wrapper):
    """A Dict's ``action_mask`` as it is, and the rest as one array: ``{"action_mask", "observation"}``.

    A single other entry that is a Box keeps its shape; anything else becomes flat float32, as by
    ``FlattenObservation``.

    Args:
        env: an environment whose Dict observations have ``action_mask``, one number for each action, or for
            each choice of a multi-discrete action, component after component.
    """

    def __post_init__(self) -> None:
        """Check the mask's size."""
        space: Any = super().observation_space()
        mask, action = space.spaces[MASK], super().action_space()
        choices = sum(getattr(action, "nvec", (getattr(action, "n", 0),)))
        if not choices or getattr(mask, "shape", None) != (choices,):
            raise ValueError(
                f"{self.name}: got an action_mask of {mask!r} with actions {action!r}, expected one number "
                "for each choice of a Discrete or MultiDiscrete"
            )

    def observation_space(self, params: PyTree = None) -> spaces.Dict:
        """Return the Dict of mask and observation."""
        space: Any = super().observation_space(params)
        rest = _rest(space)
        observation = rest if isinstance(rest, spaces.Box) else spaces.encoded_space(rest)
        return spaces.Dict({MASK: space.spaces[MASK], OBSERVATION: observation})

    def reset(self, key: jax.Array, params: PyTree = None) -> tuple[PyTree, PyTree]:
        """Begin an episode."""
        obs, state = self.env.reset(key, params)
        return self._split(obs), state

    def step(self, key: jax.Array, state: PyTree, action: PyTree, params: PyTree = None) -> Step:
        """Take one step."""
        obs, state, reward, terminated, truncated, info = self.env.step(key, state, action, params)
        info = {**info, "final_observation": self._split(info["final_observation"])}
        return self._split(obs), state, reward, terminated, truncated, info

    def _split(self, obs: PyTree) -> dict[str, jax.Array]:
        space: Any = self._static_spaces()[0]
        rest = _rest(space)
        others = {name: spaces.part_of(obs, name) for name in space.spaces if name != MASK}
        value = others if isinstance(rest, spaces.Dict) else next(iter(others.values()))
        observation = value if isinstance(rest, spaces.Box) else spaces.encode(rest, value)
        return {MASK: spaces.part_of(obs, MASK), OBSERVATION: observation}


def _rest(space: Any) -> spaces.Space:
    """Return the space of what is no mask: the only other entry's, or a Dict of the others."""
    others = {name: part for name, part in space.spaces.items() if name != MASK}
    return next(iter(others.values())) if len(others) == 1 else spaces.Dict(others)
