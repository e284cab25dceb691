"""Battleship: find the ships from hits and misses alone."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from s5_envs import spaces
from s5_envs.base import Environment, EnvParams, EnvState
from s5_envs.draws import uniform_int
from s5_envs.popgym import bitboard

TRY_WORDS = 2  # random words that one try to place a ship uses


@struct.dataclass
class Fleet:
    """Ships being placed for the next episode."""

    squares: jax.Array  # (board_size,) uint32, squares with a ship (s5_envs.popgym.bitboard)
    placed: jax.Array  # () int32, ships placed so far


@struct.dataclass
class State(EnvState):
    """Battleship between two steps."""

    ships: jax.Array  # (board_size,) uint32, squares with a ship (s5_envs.popgym.bitboard)
    guesses: jax.Array  # (board_size,) uint32, squares guessed so far
    hits: jax.Array  # () int32, ship squares found
    hit: jax.Array  # () bool, the last guess found one
    next_fleet: (
        Fleet  # the next episode's ships: each step tries to place one, since all at once cost too much
    )


@dataclass(frozen=True)
class Battleship(Environment[State, jax.Array, Fleet]):
    """Guess squares until all ships are sunk; only hit or miss is shown.

    Observation: ``(2,)`` float32, miss = 0 or hit = 1, one-hot; a square guessed before is a miss, and so is
    the first observation. Action: row and column, ``MultiDiscrete([board_size, board_size])``.
    Reward: 1 / (ship squares) for a hit, -1 / (other squares) for a miss. The episode terminates when all
    ship squares are found and is truncated after board_size ** 2 steps; both can come at once.

    Args:
        board_size: rows and columns.
        ship_sizes: squares of each ship. Each is placed uniformly among the places that are free, in order.
    """

    board_size: int = 10
    ship_sizes: tuple[int, ...] = (2, 3, 3, 4)

    obs_requires_prev_action = True
    draw_words = TRY_WORDS

    def __post_init__(self) -> None:
        """Check the configuration."""
        n = self.board_size
        if not isinstance(n, int) or not 2 <= n <= bitboard.MAX_SIZE:
            raise ValueError(
                f"Battleship: board_size must be an integer in [2, {bitboard.MAX_SIZE}], got {n!r}"
            )
        object.__setattr__(self, "ship_sizes", tuple(self.ship_sizes))
        if not self.ship_sizes or min(self.ship_sizes) < 1:
            raise ValueError(f"Battleship: ship_sizes must be positive integers, got {self.ship_sizes}")
        taken = 0
        for size in self.ship_sizes:
            # Rows hold n * (n // size) disjoint places, and a taken square spoils one of them at most.
            if n * (n // size) <= taken:
                raise ValueError(
                    f"Battleship: ships of {self.ship_sizes} may not fit a board of {n} x {n} squares"
                )
            taken += size

    @property
    def episode_length(self) -> int:
        """As many guesses as squares."""
        return self.board_size**2

    @property
    def num_ship_squares(self) -> int:
        """Hits needed."""
        return sum(self.ship_sizes)

    @property
    def reward_range(self) -> tuple[float, float]:
        """A miss and a hit."""
        return -1.0 / (self.episode_length - self.num_ship_squares), 1.0 / self.num_ship_squares

    @property
    def deal_words(self) -> int:
        """The seed of all further words."""
        return 2

    def deal(self, words: jax.Array, params: EnvParams) -> jax.Array:
        """Place the ships: ``(board_size,)`` uint32."""
        return self._finish(self._empty_fleet(), words, jnp.array(True))

    def restart(self, words: jax.Array, state: State, params: EnvParams) -> State:
        """Begin with the ships that were placed during the last episode."""
        ended = (state.hits == self.num_ship_squares) | self.is_truncated(state, params)
        return self.start(self._finish(state.next_fleet, words, ended), params)

    def _empty_fleet(self) -> Fleet:
        return Fleet(squares=jnp.zeros((self.board_size,), jnp.uint32), placed=jnp.int32(0))

    def _finish(self, fleet: Fleet, words: jax.Array, needed: jax.Array) -> jax.Array:
        key = jax.random.wrap_key_data(words, impl="threefry2x32")

        def missing(carry: tuple[Fleet, jax.Array]) -> jax.Array:
            return needed & (carry[0].placed < len(self.ship_sizes))

        def body(carry: tuple[Fleet, jax.Array]) -> tuple[Fleet, jax.Array]:
            fleet, tries = carry
            words = jax.random.bits(jax.random.fold_in(key, tries), (TRY_WORDS,), jnp.uint32)
            return self._try_ship(fleet, words), tries + 1

        return jax.lax.while_loop(missing, body, (fleet, jnp.int32(0)))[0].squares

    def _try_ship(self, fleet: Fleet, words: jax.Array) -> Fleet:
        """Draw a place for the next ship, and put it there if the place is free.

        The reference draws a square and a direction until the ship lies on the board and on free squares.
        Each place can be drawn from both its ends, so that is drawing uniformly among the free places, and
        so is this.
        """
        n = self.board_size
        sizes = jnp.array(self.ship_sizes, jnp.int32)
        size = jnp.where(jnp.arange(len(self.ship_sizes)) == fleet.placed, sizes, 0).sum()
        line, offset = uniform_int(words[0], 2 * n), uniform_int(words[1], n - size + 1)
        is_column = line >= n
        line = (line - n * is_column).astype(jnp.uint32)
        rows = jnp.arange(n)
        as_row = jnp.where(rows == line, ((jnp.uint32(1) << size.astype(jnp.uint32)) - 1), jnp.uint32(0))
        as_row = as_row << offset.astype(jnp.uint32)
        as_column = jnp.where((rows >= offset) & (rows < offset + size), jnp.uint32(1) << line, jnp.uint32(0))
        place = jnp.where(is_column, as_column, as_row)
        placed = (size > 0) & ~(place & fleet.squares).any()
        return Fleet(
            squares=jnp.where(placed, fleet.squares | place, fleet.squares), placed=fleet.placed + placed
        )

    def start(self, hidden: jax.Array, params: EnvParams) -> State:
        """Begin with the ships of ``hidden``: ``(board_size,)`` uint32."""
        return State(
            time=jnp.int32(0),
            ships=hidden,
            guesses=jnp.zeros((self.board_size,), jnp.uint32),
            hits=jnp.int32(0),
            hit=jnp.array(False),
            next_fleet=self._empty_fleet(),
        )

    def draw(self, words: jax.Array, state: State, params: EnvParams) -> Fleet:
        """Try to place one more of the next episode's ships."""
        return self._try_ship(state.next_fleet, words)

    def transition(
        self, state: State, action: jax.Array, draw: Fleet, params: EnvParams
    ) -> tuple[State, jax.Array, jax.Array]:
        """Look at one square."""
        guess = bitboard.square(self.board_size, *jnp.asarray(action, jnp.int32))
        hit = (guess & state.ships & ~state.guesses).any()
        hits = state.hits + hit
        miss_reward, hit_reward = self.reward_range
        state = State(
            time=state.time + 1,
            ships=state.ships,
            guesses=state.guesses | guess,
            hits=hits,
            hit=hit,
            next_fleet=draw,
        )
        return state, jnp.where(hit, hit_reward, miss_reward), hits == self.num_ship_squares

    def get_obs(
        self, state: State, params: EnvParams | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Return miss or hit, one-hot."""
        return spaces.one_hot(state.hit, 2)

    def action_mask(self, state: State, params: EnvParams) -> jax.Array:
        """Return the squares not guessed yet, row by row: ``(board_size ** 2,)`` bool."""
        return ~bitboard.unpack(state.guesses, self.board_size).reshape(-1)

    def observation_space(self, params: EnvParams | None = None) -> spaces.Box:
        """Return the space of a one-hot miss or hit."""
        return spaces.Box(0.0, 1.0, (2,))

    def action_space(self, params: EnvParams | None = None) -> spaces.MultiDiscrete:
        """Return rows and columns."""
        return spaces.MultiDiscrete((self.board_size, self.board_size))
