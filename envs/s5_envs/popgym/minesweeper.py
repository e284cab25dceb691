"""MineSweeper: clear the board from the counts of neighbouring mines, one square at a time."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from s5_envs import spaces
from s5_envs.base import Environment, EnvParams, EnvState
from s5_envs.draws import uniform_int
from s5_envs.popgym import bitboard


@struct.dataclass
class State(EnvState):
    """MineSweeper between two steps."""

    mines: jax.Array  # (rows,) uint32, squares with a mine (s5_envs.popgym.bitboard)
    viewed: jax.Array  # (rows,) uint32, squares cleared so far
    clue: jax.Array  # () int32, mines around the last square, itself included; 0 at first
    over: jax.Array  # () bool, a mine went off or everything is cleared


@dataclass(frozen=True)
class MineSweeper(Environment[State, jax.Array, None]):
    """Click squares until all that hide no mine are cleared; only the last square's count is shown.

    Observation: ``(min(num_mines + 1, 10),)`` float32, one-hot: the mines in the 3 x 3 squares around the
    last click, the clicked one included. Action: row and column, ``MultiDiscrete(dims)``.
    Reward, with L = squares without a mine: 1 / L for a new square, -0.5 / (L - 2) for one viewed before,
    -0.5 - 1 / L for a mine. The episode terminates with a mine or when all is cleared, else it is truncated
    after L steps.

    Args:
        dims: rows and columns.
        num_mines: mines, placed uniformly.
    """

    dims: tuple[int, int] = (4, 4)
    num_mines: int = 2

    obs_requires_prev_action = True
    draw_words = 0

    def __post_init__(self) -> None:
        """Check the configuration."""
        object.__setattr__(self, "dims", tuple(self.dims))
        if len(self.dims) != 2 or not all(2 <= d <= bitboard.MAX_SIZE for d in self.dims):
            raise ValueError(
                f"MineSweeper: dims must be two numbers in [2, {bitboard.MAX_SIZE}], got {self.dims}"
            )
        most = self.dims[0] * self.dims[1] - 3
        if not 1 <= self.num_mines <= most:
            raise ValueError(
                f"MineSweeper: num_mines must be in [1, {most}] on {self.dims}, got {self.num_mines}"
            )

    @property
    def episode_length(self) -> int:
        """The number of squares without a mine."""
        return self.dims[0] * self.dims[1] - self.num_mines

    @property
    def num_clues(self) -> int:
        """How many different counts can be shown."""
        return min(self.num_mines + 1, 10)

    @property
    def reward_range(self) -> tuple[float, float]:
        """A mine and a new square."""
        return -0.5 - 1.0 / self.episode_length, 1.0 / self.episode_length

    @property
    def deal_words(self) -> int:
        """One a mine."""
        return self.num_mines

    def deal(self, words: jax.Array, params: EnvParams) -> jax.Array:
        """Place the mines: ``(rows,)`` uint32, a uniform subset of the squares by Floyd's algorithm."""
        rows, columns = self.dims
        mines = jnp.zeros((rows,), jnp.uint32)
        for i, last in enumerate(range(rows * columns - self.num_mines, rows * columns)):
            drawn = uniform_int(words[i], last + 1)
            chosen = bitboard.square(rows, drawn // columns, drawn % columns)
            taken = (mines & chosen).any()
            otherwise = bitboard.square(rows, jnp.int32(last // columns), jnp.int32(last % columns))
            mines = mines | jnp.where(taken, otherwise, chosen)
        return mines

    def start(self, hidden: jax.Array, params: EnvParams) -> State:
        """Begin with the mines of ``hidden``: ``(rows,)`` uint32."""
        return State(
            time=jnp.int32(0),
            mines=hidden,
            viewed=jnp.zeros((self.dims[0],), jnp.uint32),
            clue=jnp.int32(0),
            over=jnp.array(False),
        )

    def draw(self, words: jax.Array, state: State, params: EnvParams) -> None:
        """Draw nothing: the rules decide all."""
        return

    def transition(
        self, state: State, action: jax.Array, draw: None, params: EnvParams
    ) -> tuple[State, jax.Array, jax.Array]:
        """Click one square."""
        y, x = jnp.asarray(action, jnp.int32)
        click = bitboard.square(self.dims[0], y, x)
        mine = (click & state.mines).any()
        again = (click & state.viewed).any()
        mine_reward, new_reward = self.reward_range
        reward = jnp.where(again, -0.5 / (self.episode_length - 2), new_reward)
        reward = jnp.where(mine, mine_reward, reward)
        viewed = jnp.where(mine, state.viewed, state.viewed | click)
        over = mine | (bitboard.count(viewed) == self.episode_length)
        state = State(
            time=state.time + 1,
            mines=state.mines,
            viewed=viewed,
            clue=bitboard.neighbours(state.mines, y, x),
            over=over,
        )
        return state, reward, over

    def is_truncated(self, state: State, params: EnvParams) -> jax.Array:
        """Tell whether the steps ran out, unless the last one ended the game."""
        return (state.time >= params.max_steps_in_episode) & ~state.over

    def get_obs(
        self, state: State, params: EnvParams | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Return the count of the last click, one-hot."""
        return spaces.one_hot(state.clue, self.num_clues)

    def action_mask(self, state: State, params: EnvParams) -> jax.Array:
        """Return the squares not viewed yet, row by row: ``(rows * columns,)`` bool."""
        return ~bitboard.unpack(state.viewed, self.dims[1]).reshape(-1)

    def observation_space(self, params: EnvParams | None = None) -> spaces.Box:
        """Return the space of a one-hot count."""
        return spaces.Box(0.0, 1.0, (self.num_clues,))

    def action_space(self, params: EnvParams | None = None) -> spaces.MultiDiscrete:
        """Return rows and columns."""
        return spaces.MultiDiscrete(self.dims)
