"""The base of the two labyrinth families: a fresh maze every episode, seen through a 3 x 3 window.

A maze takes dozens of steps to make, and gymnax asks for a fresh episode at every step. So each episode
grows the next one's maze, a few cells a step and fast enough to be done when the shortest possible episode
ends; an episode cut shorter than that (by a tighter time limit) has the rest of the maze made at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from s5_envs import spaces
from s5_envs.base import Environment, EnvParams, EnvState
from s5_envs.popgym import bitboard
from s5_envs.popgym import maze as mazes

NO_ACTION = 4
FREE, WALL, START, GOAL = range(4)
NUM_CODES = 5  # the reference's fifth, "hidden", never shows in an observation
_MOVES = np.array([(0, -1), (0, 1), (-1, 0), (1, 0)], np.int32)  # left, right, up, down


@struct.dataclass
class Layout:
    """The hidden part of an episode: its maze, and the beginning of the next."""

    walls: jax.Array  # (side,) uint32, bit x of row y set where square (y, x) cannot be entered
    start: jax.Array  # (2,) int32, row and column, in the outer wall
    goal: jax.Array  # (2,) int32, row and column of the end; (-1, -1) where the family shows none
    next_maze: mazes.Maze  # the next episode's maze, growing


@struct.dataclass
class State(EnvState):
    """A labyrinth between two steps; a square is (row, column), ``side = size + 1``."""

    layout: Layout
    position: jax.Array  # (2,) int32, the agent's square
    action: jax.Array  # () int32, the action that led here, NO_ACTION at first
    visited: jax.Array  # (side,) uint32, bit x of row y set where the agent has been at (y, x)
    n_free: jax.Array  # () int32, squares that can be entered, the start not counted
    n_found: jax.Array  # () int32, how many of them the agent has been at


@dataclass(frozen=True)
class Labyrinth(Environment[State, Layout, mazes.Maze]):
    """A maze with the agent in it; subclasses say what it is for.

    Observation: ``(50,)`` float32, ten one-hot codes of five. Nine are the squares of the 3 x 3 window around
    the agent, row by row (free, wall, start, goal, never used), the tenth is the action that led here (left,
    right, up, down, none). At the top or left border the window is not centred: it begins at the border and
    its last row or column reads as wall, as in the reference. Action: left, right, up, down; moving into
    a wall or off the maze leaves the agent where it is.

    The episode is truncated after ``max_episode_length - 1`` steps, the reference's count.

    Args:
        size: squares along a side of the maze, its outer wall on one side not counted; even, from 6 to 30.
        max_episode_length: the reference's episode length L; a step costs 1 / L.
    """

    size: int = 10
    max_episode_length: int = 1024

    obs_requires_prev_action = True
    shows_goal: ClassVar[bool]

    def __post_init__(self) -> None:
        """Check the configuration."""
        smallest, largest = 2 * mazes.MIN_CELLS, 2 * mazes.MAX_CELLS
        if not isinstance(self.size, int) or self.size % 2 or not smallest <= self.size <= largest:
            raise ValueError(
                f"{self.name}: size must be an even integer from {smallest} to {largest}, got {self.size!r}"
            )
        if not isinstance(self.max_episode_length, int) or self.max_episode_length < 2:
            raise ValueError(
                f"{self.name}: max_episode_length must be an integer above 1, got {self.max_episode_length!r}"
            )

    @property
    def cells(self) -> int:
        """Cells along a side of the maze."""
        return self.size // 2

    @property
    def shortest_episode(self) -> int:
        """Fewest steps in which the goal of the family can be reached in any maze."""
        raise NotImplementedError

    @property
    def episode_length(self) -> int:
        """Steps until the time limit."""
        return self.max_episode_length - 1

    @property
    def deal_words(self) -> int:
        """A maze, its entrances, the next maze's first cell."""
        return mazes.MAKE_WORDS + self._layout_words

    @property
    def restart_words(self) -> int:
        """Entrances, the next maze's first cell, and the rest of a maze that is not ready."""
        return mazes.FINISH_WORDS + self._layout_words

    @property
    def draw_words(self) -> int:
        """Random words for a step's share of the next maze."""
        shortest = min(self.shortest_episode, self.episode_length)
        return mazes.CARVE_WORDS * -(-(self.cells**2 - 1) // shortest)

    @property
    def _layout_words(self) -> int:
        return mazes.ENTRANCE_WORDS + 1

    def deal(self, words: jax.Array, params: EnvParams) -> Layout:
        """Make a whole maze and choose its start and end."""
        maze = mazes.make_maze(words[: mazes.MAKE_WORDS], self.cells)
        return self._layout(words[mazes.MAKE_WORDS :], maze.walls)

    def draw(self, words: jax.Array, state: State, params: EnvParams) -> mazes.Maze:
        """Grow the next episode's maze."""
        return mazes.grow(state.layout.next_maze, words)

    def restart(self, words: jax.Array, state: State, params: EnvParams) -> State:
        """Begin the episode in the maze that grew during the last one."""
        ended = self.is_terminated(state, params) | self.is_truncated(state, params)
        maze = mazes.finish(state.layout.next_maze, words[: mazes.FINISH_WORDS], needed=ended)
        return self.start(self._layout(words[mazes.FINISH_WORDS :], maze.walls), params)

    def _layout(self, words: jax.Array, walls: jax.Array) -> Layout:
        start, end = mazes.draw_entrances(words[: mazes.ENTRANCE_WORDS], self.cells)
        walls = mazes.without_bit(walls, start)
        return Layout(
            walls=mazes.without_bit(walls, end) if self.shows_goal else walls,
            start=start,
            goal=end if self.shows_goal else jnp.full((2,), -1, jnp.int32),
            next_maze=mazes.start_maze(words[-1], self.cells),
        )

    def layout_of_grid(self, grid: jax.Array, start: jax.Array, end: jax.Array) -> Layout:
        """Return the layout of a maze given as the reference records it.

        Args:
            grid: ``(side, side)`` int, 0 free, 1 wall, 2 start, 3 goal.
            start: ``(2,)`` int, row and column of the start.
            end: ``(2,)`` int, row and column of the end.
        """
        start, end = jnp.asarray(start, jnp.int32), jnp.asarray(end, jnp.int32)
        return Layout(
            walls=bitboard.pack(jnp.asarray(grid) == WALL),
            start=start,
            goal=end if self.shows_goal else jnp.full((2,), -1, jnp.int32),
            next_maze=mazes.start_maze(jnp.uint32(0), self.cells),
        )

    def start(self, hidden: Layout, params: EnvParams) -> State:
        """Put the agent on the start."""
        side = self.size + 1
        return State(
            time=jnp.int32(0),
            layout=hidden,
            position=hidden.start,
            action=jnp.int32(NO_ACTION),
            visited=mazes.with_bit(jnp.zeros((side,), jnp.uint32), hidden.start),
            n_free=side * side - 1 - bitboard.count(hidden.walls),
            n_found=jnp.int32(0),
        )

    def transition(
        self, state: State, action: jax.Array, draw: mazes.Maze, params: EnvParams
    ) -> tuple[State, jax.Array, jax.Array]:
        """Move, if no wall is in the way."""
        action = jnp.asarray(action, jnp.int32)
        target = jnp.clip(state.position + jnp.asarray(_MOVES)[action], 0, self.size)
        position = jnp.where(mazes.has_bit(state.layout.walls, target), state.position, target)
        is_new = ~mazes.has_bit(state.visited, position)
        state = replace(
            state,
            time=state.time + 1,
            layout=replace(state.layout, next_maze=draw),
            position=position,
            action=action,
            visited=mazes.with_bit(state.visited, position),
            n_found=state.n_found + is_new,
        )
        return state, self.reward(state, is_new), self.is_terminated(state, params)

    def reward(self, state: State, is_new: jax.Array) -> jax.Array:
        """Return the reward of a step.

        Args:
            state: the state after the step.
            is_new: () bool, whether it led to a square where the agent had not been.
        """
        raise NotImplementedError

    def get_obs(
        self, state: State, params: EnvParams | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Return the window around the agent and the last action, one-hot."""
        layout, position = state.layout, state.position
        corner = jnp.maximum(position - 1, 0)
        last = jnp.minimum(position + 1, self.size)
        rows, columns = corner[0] + jnp.arange(3), corner[1] + jnp.arange(3)
        inside = (rows <= last[0])[:, None] & (columns <= last[1])
        bits = layout.walls[jnp.minimum(rows, self.size)][:, None] >> columns.astype(jnp.uint32)
        codes = jnp.where(inside, (bits & 1).astype(jnp.int32), WALL)
        for square, code in ((layout.start, START), (layout.goal, GOAL)):
            here = (rows == square[0])[:, None] & (columns == square[1]) & inside
            codes = jnp.where(here, code, codes)
        return spaces.one_hot(jnp.append(codes.reshape(-1), state.action), NUM_CODES).reshape(-1)

    def observation_space(self, params: EnvParams | None = None) -> spaces.Box:
        """Return the space of ten one-hot codes."""
        return spaces.Box(0.0, 1.0, (10 * NUM_CODES,))

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """Return left, right, up, down."""
        return spaces.Discrete(len(_MOVES))
