"""Perfect mazes grown inside JAX a few cells at a time, by hunt-and-kill, POPGym's generator.

The reference (mazelib's ``HuntAndKill`` with random hunts) walks at random through unvisited cells until it
is stuck, then draws cells blindly until it hits a visited one with an unvisited neighbour, and walks on from
there; after as many blind draws as the grid has squares it stops. Drawing blindly until a hit is drawing
uniformly among the hits, and a geometric number of draws. So here every ``carve`` opens exactly one cell,
and the mazes have exactly the reference's distribution, the rare ones it leaves unfinished included.

A grid of ``n x n`` cells has ``2n + 1`` rows and columns of squares, cell ``(i, j)`` at square ``(2i + 1,
2j + 1)``. A row of squares is one uint32, bit ``x`` set where column ``x`` is a wall.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from flax import struct

from s5_envs.draws import uniform, uniform_int
from s5_envs.popgym import bitboard

MIN_CELLS = 3
"""Cells along a side below which the reference refuses to make a maze."""

MAX_CELLS = 15
"""Cells along a side above which a row of squares no longer fits in 32 bits."""

CARVE_WORDS = 3
"""32-bit random words that `carve` uses: for the hunt's cell, the number of its draws, the direction."""

FINISH_WORDS = 2
"""32-bit random words that `finish` uses."""

MAKE_WORDS = 1 + FINISH_WORDS
"""32-bit random words that `make_maze` uses."""

ENTRANCE_WORDS = 3
"""32-bit random words that `draw_entrances` uses."""


@struct.dataclass
class Maze:
    """A maze while it grows, for ``n x n`` cells; finished once ``remaining`` is zero."""

    walls: jax.Array  # (2n + 1,) uint32, bit x of row y set where square (y, x) is a wall
    head: jax.Array  # (2,) int32, row and column (in cells) where the walk stands
    remaining: jax.Array  # () int32, cells still to be opened
    draws: jax.Array  # () int32, blind draws the hunts may still make


def cells_per_side(maze: Maze) -> int:
    """Return ``n``, the number of cells along a side of the maze."""
    return maze.walls.shape[-1] // 2


def start_maze(word: jax.Array, n: int) -> Maze:
    """Return an ``n x n`` maze in which one cell, drawn uniformly with ``word`` () uint32, is open.

    Raises:
        ValueError: if ``n`` is outside ``[MIN_CELLS, MAX_CELLS]``.
    """
    if not MIN_CELLS <= n <= MAX_CELLS:
        raise ValueError(f"a maze has {MIN_CELLS} to {MAX_CELLS} cells along a side, got {n}")
    side = 2 * n + 1
    cell = uniform_int(word, n * n)
    head = jnp.stack([cell // n, cell % n])
    return Maze(
        walls=without_bit(jnp.full((side,), (1 << side) - 1, jnp.uint32), 2 * head + 1),
        head=head,
        remaining=jnp.int32(n * n - 1),
        draws=jnp.int32(side * side),
    )


def carve(maze: Maze, words: jax.Array) -> Maze:
    """Open one more cell: a step of the walk or, where it is stuck, a hunt and the next walk's first step.

    Args:
        maze: the maze so far; a finished one is returned as it is.
        words: (CARVE_WORDS,) uint32, uniformly random.
    """
    n = cells_per_side(maze)
    unvisited = maze.walls[1::2] & _cell_columns(n)
    visited = ~maze.walls[1::2] & _cell_columns(n)
    nothing = jnp.zeros_like(unvisited[:1])
    above, below = jnp.concatenate([nothing, unvisited[:-1]]), jnp.concatenate([unvisited[1:], nothing])
    left, right = (unvisited << 2) & _cell_columns(n), unvisited >> 2
    extendable = visited & (above | below | left | right)

    at_head = jnp.where(jnp.arange(n) == maze.head[0], _column_bit(maze.head[1]), 0) & extendable
    stuck = jnp.all(at_head == 0)
    row, column, n_choices = _pick_cell(jnp.where(stuck, extendable, at_head), words[0])
    draws = jnp.where(stuck, maze.draws - _blind_draws(n_choices / (n * n), words[1]), maze.draws)

    is_free = jnp.stack([_bit_at(neighbour, row, column) for neighbour in (above, below, left, right)])
    upto = jnp.cumsum(is_free.astype(jnp.int32))
    direction = jnp.sum(upto <= uniform_int(words[2], upto[-1]))
    step = jnp.array([(-1, 0), (1, 0), (0, -1), (0, 1)], jnp.int32)[direction]
    head = jnp.stack([row, column]) + step
    walls = without_bit(without_bit(maze.walls, 2 * head + 1), 2 * head + 1 - step)

    gave_up = replace(maze, remaining=jnp.int32(0))
    grown = _where(draws < 0, gave_up, Maze(walls, head, maze.remaining - 1, draws))
    return _where(maze.remaining == 0, maze, grown)


def grow(maze: Maze, words: jax.Array) -> Maze:
    """Open up to as many more cells as ``words`` (n_cells * CARVE_WORDS,) uint32 suffice for."""
    return jax.lax.scan(lambda maze, w: (carve(maze, w), None), maze, words.reshape(-1, CARVE_WORDS))[0]


def finish(maze: Maze, words: jax.Array, needed: jax.Array | bool = True) -> Maze:
    """Grow the maze to its end where that is ``needed``; costs nothing where it is finished already.

    Under vmap the loop runs until the last maze of the batch that needs it is finished.

    Args:
        maze: the maze so far.
        words: (FINISH_WORDS,) uint32, uniformly random: the seed of all further words.
        needed: () bool, whether to do anything.
    """
    key = jax.random.wrap_key_data(words, impl="threefry2x32")

    def unfinished(maze: Maze) -> jax.Array:
        return needed & (maze.remaining > 0)

    def body(maze: Maze) -> Maze:
        key_now = jax.random.fold_in(key, maze.remaining)
        return carve(maze, jax.random.bits(key_now, (CARVE_WORDS,), jnp.uint32))

    return jax.lax.while_loop(unfinished, body, maze)


def make_maze(words: jax.Array, n: int) -> Maze:
    """Return a finished maze of ``n x n`` cells, drawn with ``words`` (MAKE_WORDS,) uint32."""
    return finish(start_maze(words[0], n), words[1:])


def draw_entrances(words: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
    """Draw the start and the end, both in the outer wall beside a cell, on opposite sides of the maze.

    Args:
        words: (ENTRANCE_WORDS,) uint32, uniformly random.
        n: cells along a side.

    Returns:
        Two (2,) int32 squares (row, column).
    """
    side = uniform_int(words[0], 4)
    is_first_edge, is_row = side % 2 == 0, side < 2
    edges = jnp.where(is_first_edge, jnp.array([0, 2 * n], jnp.int32), jnp.array([2 * n, 0], jnp.int32))
    places = 2 * jnp.stack([uniform_int(words[1], n), uniform_int(words[2], n)]) + 1
    squares = jnp.where(is_row, jnp.stack([edges, places], 1), jnp.stack([places, edges], 1))
    return squares[0], squares[1]


def has_bit(rows: jax.Array, square: jax.Array) -> jax.Array:
    """Tell whether the bit of ``square`` (row, column) is set in the rows of bits (H,)."""
    return ((rows[square[0]] >> square[1].astype(jnp.uint32)) & 1).astype(bool)


def with_bit(rows: jax.Array, square: jax.Array) -> jax.Array:
    """Return the rows of bits (H,) with the bit of ``square`` (row, column) set."""
    return rows | bitboard.square(rows.shape[0], *square)


def without_bit(rows: jax.Array, square: jax.Array) -> jax.Array:
    """Return the rows of bits (H,) with the bit of ``square`` (row, column) cleared."""
    return rows & ~bitboard.square(rows.shape[0], *square)


def _cell_columns(n: int) -> jax.Array:
    columns: jax.Array = jnp.uint32(sum(2 << (2 * j) for j in range(n)))
    return columns


def _column_bit(column: jax.Array) -> jax.Array:
    bit: jax.Array = jnp.uint32(2)
    return bit << (2 * column).astype(jnp.uint32)


def _bit_at(cells: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
    return (cells[row] & _column_bit(column)) != 0


def _pick_cell(cells: jax.Array, word: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Pick a cell whose bit is set in ``cells`` (n,), uniformly: row, column, and the number of such cells.

    Where no bit is set, some cell inside the grid.
    """
    n = cells.shape[0]
    in_row = jax.lax.population_count(cells).astype(jnp.int32)
    upto = jnp.cumsum(in_row)
    rank = uniform_int(word, upto[-1])
    row = jnp.minimum(jnp.sum(upto <= rank, dtype=jnp.int32), n - 1)
    bits = (cells[row] >> (2 * jnp.arange(n, dtype=jnp.uint32) + 1)) & 1
    is_before = jnp.cumsum(bits.astype(jnp.int32)) <= rank - (upto[row] - in_row[row])
    return row, jnp.minimum(jnp.sum(is_before, dtype=jnp.int32), n - 1), upto[-1]


def _blind_draws(chance: jax.Array, word: jax.Array) -> jax.Array:
    """Draw the number of draws up to and including the first hit, geometric with probability ``chance``."""
    return 1 + jnp.floor(jnp.log1p(-uniform(word)) / jnp.log1p(-chance)).astype(jnp.int32)


def _where(take_first: jax.Array, first: Maze, second: Maze) -> Maze:
    chosen: Maze = jax.tree.map(lambda a, b: jnp.where(take_first, a, b), first, second)
    return chosen
