"""LabyrinthExplore: see all of a maze."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from s5_envs.base import EnvParams
from s5_envs.popgym.labyrinth import Labyrinth, State


@dataclass(frozen=True)
class LabyrinthExplore(Labyrinth):
    """The episode terminates when the agent has been everywhere.

    A step onto a square where the agent has not been earns 1 / (free squares), any other costs 1 / L. The
    maze has no exit. Observation, action, time limit and arguments are ``Labyrinth``'s.
    """

    shows_goal: ClassVar[bool] = False

    @property
    def shortest_episode(self) -> int:
        """Every square once: the cells, and a passage less."""
        return 2 * self.cells**2 - 1

    @property
    def reward_range(self) -> tuple[float, float]:
        """A step onto known ground, and one onto new ground in a maze with every cell in it.

        About one maze in 20,000 lacks a few cells (see ``maze``), and its squares are worth a little more.
        """
        return -1.0 / self.max_episode_length, 1.0 / (2 * self.cells**2 - 1)

    def is_terminated(self, state: State, params: EnvParams) -> jax.Array:
        """Tell whether every free square was found."""
        return state.n_found == state.n_free

    def reward(self, state: State, is_new: jax.Array) -> jax.Array:
        """Return the share of a newly found square, or -1 / L."""
        return jnp.where(is_new, 1.0 / state.n_free, -1.0 / self.max_episode_length)
