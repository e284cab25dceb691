"""LabyrinthEscape: find the way out of a maze."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from s5_envs.base import EnvParams
from s5_envs.popgym.labyrinth import Labyrinth, State


@dataclass(frozen=True)
class LabyrinthEscape(Labyrinth):
    """The episode terminates on the goal, an opening in the outer wall opposite to the start's side.

    Every step costs 1 / L, the one onto the goal earns 1 besides. Observation, action, time limit and
    arguments are ``Labyrinth``'s.
    """

    shows_goal: ClassVar[bool] = True

    @property
    def shortest_episode(self) -> int:
        """The way straight through."""
        return self.size

    @property
    def reward_range(self) -> tuple[float, float]:
        """Any step, and the step onto the goal."""
        step = 1.0 / self.max_episode_length
        return -step, 1.0 - step

    def is_terminated(self, state: State, params: EnvParams) -> jax.Array:
        """Tell whether the agent stands on the goal."""
        return jnp.all(state.position == state.layout.goal)

    def reward(self, state: State, is_new: jax.Array) -> jax.Array:
        """Return -1 / L, and 1 more on the goal."""
        step = 1.0 / self.max_episode_length
        return jnp.where(jnp.all(state.position == state.layout.goal), 1.0 - step, -step)
