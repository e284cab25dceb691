"""The maze generator against its properties, and against the reference's own generator."""

from __future__ import annotations

import random
from collections import deque
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mazelib import Maze as ReferenceMaze
from mazelib.generate.HuntAndKill import HuntAndKill
from scipy import stats

from s5_envs.popgym import bitboard, maze

SIZES = (5, 7, 9)  # the registered labyrinths' cells along a side


@partial(jax.jit, static_argnums=(1, 2))
def _make_many(key: jax.Array, count: int, n: int) -> tuple[jax.Array, ...]:
    words = jax.random.bits(key, (count, maze.MAKE_WORDS + maze.ENTRANCE_WORDS))
    made = jax.vmap(lambda w: maze.make_maze(w, n))(words[:, : maze.MAKE_WORDS])
    start, end = jax.vmap(lambda w: maze.draw_entrances(w, n))(words[:, maze.MAKE_WORDS :])
    walls = jax.vmap(lambda rows: bitboard.unpack(rows, 2 * n + 1))(made.walls)
    return walls, start, end, made.remaining


def make_many(seed: int, count: int, n: int) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(x) for x in _make_many(jax.random.key(seed), count, n))


def distances(walls: np.ndarray, start: tuple[int, int]) -> dict[tuple[int, int], int]:
    """Steps from ``start`` to every square that can be reached."""
    steps, queue = {start: 0}, deque([start])
    while queue:
        y, x = here = queue.popleft()
        for square in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            inside = 0 <= square[0] < walls.shape[0] and 0 <= square[1] < walls.shape[1]
            if inside and not walls[square] and square not in steps:
                steps[square] = steps[here] + 1
                queue.append(square)
    return steps


def path_length(walls: np.ndarray, start: tuple[int, int], end: tuple[int, int]) -> int:
    opened = walls.copy()
    opened[start] = opened[end] = False
    return distances(opened, start)[end]


def dead_ends(walls: np.ndarray) -> int:
    is_free = ~walls
    exits = (
        is_free[:-1:2, 1::2].astype(int) + is_free[2::2, 1::2] + is_free[1::2, :-1:2] + is_free[1::2, 2::2]
    )
    return int((exits == 1).sum())


@pytest.mark.parametrize("n", [3, *SIZES, 15])
def test_every_maze_is_a_tree_of_all_cells(n):
    walls, _, _, remaining = make_many(n, 40, n)
    assert (remaining == 0).all()
    for w in walls:
        assert w[0].all()
        assert w[-1].all()
        assert w[:, 0].all()
        assert w[:, -1].all()
        assert w[::2, ::2].all()
        assert not w[1::2, 1::2].any()
        # As many squares as a spanning tree has nodes and edges, and all connected.
        assert (~w).sum() == 2 * n * n - 1
        assert len(distances(w, (1, 1))) == 2 * n * n - 1


@pytest.mark.parametrize("n", SIZES)
def test_entrances_lie_on_opposite_sides(n):
    _, starts, ends, _ = make_many(n, 400, n)
    sides = set()
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        axis = 0 if start[0] in (0, 2 * n) and end[0] in (0, 2 * n) else 1
        assert {start[axis], end[axis]} == {0, 2 * n}
        assert start[1 - axis] % 2 == 1
        assert end[1 - axis] % 2 == 1
        sides.add((axis, start[axis]))
    assert len(sides) == 4
    assert len({tuple(s) for s in starts.tolist()}) == 4 * n


def _reference_mazes(seed: int, count: int, n: int) -> list[tuple[np.ndarray, tuple, tuple]]:
    random.seed(seed)
    np.random.seed(seed)
    mazes = []
    for _ in range(count):
        made = ReferenceMaze()
        made.generator = HuntAndKill(n, n)
        made.generate()
        made.generate_entrances(start_outer=True)
        mazes.append((np.array(made.grid) == 1, made.start, made.end))
    return mazes


def _p_value(ours: list[int], theirs: list[int]) -> float:
    """Chi-squared test that two samples of integers come from one distribution, in bins of some 8 % each."""
    pooled = np.sort(np.array([*ours, *theirs]))
    edges = np.unique(pooled[:: len(pooled) // 12])
    table = [
        np.bincount(np.searchsorted(edges, sample), minlength=len(edges) + 1) for sample in (ours, theirs)
    ]
    filled = np.array(table)[:, np.sum(table, axis=0) > 0]
    return stats.chi2_contingency(filled).pvalue


@pytest.mark.parametrize("n", SIZES)
def test_mazes_are_distributed_as_the_reference_s(n):
    """Path lengths and dead ends; a serpentine hunt or a plain depth-first walk fails both."""
    count = 1000
    reference = _reference_mazes(2026, count, n)
    walls, starts, ends, _ = make_many(2026, 2 * count, n)
    ours = [(w, tuple(s), tuple(e)) for w, s, e in zip(walls, starts.tolist(), ends.tolist(), strict=True)]
    assert _p_value([path_length(*m) for m in ours], [path_length(*m) for m in reference]) > 1e-3
    assert _p_value([dead_ends(m[0]) for m in ours], [dead_ends(m[0]) for m in reference]) > 1e-3


def test_the_test_of_the_distribution_tells_generators_apart():
    reference = _reference_mazes(1, 800, 7)
    random.seed(1)
    np.random.seed(1)
    other = [np.array(HuntAndKill(7, 7, hunt_order="serpentine").generate()) == 1 for _ in range(800)]
    assert _p_value([dead_ends(w) for w in other], [dead_ends(m[0]) for m in reference]) < 1e-3


def test_growing_by_portions_gives_a_finished_maze_after_as_many_cells():
    n = 5
    grown = maze.start_maze(jnp.uint32(12345), n)
    grow = jax.jit(maze.grow)
    for i in range(n * n - 1):
        assert int(grown.remaining) == n * n - 1 - i
        grown = grow(grown, jax.random.bits(jax.random.key(i), (maze.CARVE_WORDS,)))
    assert int(grown.remaining) == 0
    after = grow(grown, jax.random.bits(jax.random.key(99), (maze.CARVE_WORDS,)))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), grown, after))


def test_a_hunt_out_of_draws_stops_as_the_reference_does():
    """With draws for the first walk alone the maze ends where that walk is stuck, and is finished."""
    n, count = 5, 40

    @jax.jit
    @jax.vmap
    def first_walk(words: jax.Array) -> maze.Maze:
        return maze.finish(maze.start_maze(words[0], n).replace(draws=jnp.int32(0)), words[1:])

    made = first_walk(jax.random.bits(jax.random.key(0), (count, maze.MAKE_WORDS)))
    walls = np.asarray(jax.vmap(lambda rows: bitboard.unpack(rows, 2 * n + 1))(made.walls))
    visited = (~walls[:, 1::2, 1::2]).sum((1, 2))
    assert (np.asarray(made.remaining) == 0).all()
    np.testing.assert_array_equal((~walls).sum((1, 2)), 2 * visited - 1)
    assert visited.min() < n * n
    assert visited.mean() > 2


def test_finish_is_a_no_op_where_it_is_not_needed():
    started = maze.start_maze(jnp.uint32(7), 5)
    same = maze.finish(started, jnp.array([1, 2], jnp.uint32), needed=False)
    assert int(same.remaining) == int(started.remaining)


@pytest.mark.parametrize("n", [2, 16])
def test_sizes_that_do_not_fit_are_refused(n):
    with pytest.raises(ValueError, match=f"3 to 15 cells along a side, got {n}"):
        maze.start_maze(jnp.uint32(0), n)
