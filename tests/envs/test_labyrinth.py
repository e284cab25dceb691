"""The labyrinths against a plain model of the reference's rules, and their mazes across episodes.

The reference's own recordings are replayed by the conformance tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import s5_envs
from s5_envs.popgym import LabyrinthEscape, LabyrinthExplore, bitboard, maze
from s5_envs.popgym.labyrinth import NO_ACTION
from tests.marks import slow

MOVES = ((0, -1), (0, 1), (-1, 0), (1, 0))
FAMILIES = (LabyrinthEscape, LabyrinthExplore)
SMALL = tuple(family(size=6, max_episode_length=40) for family in FAMILIES)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _rollout(env, episodes: int, steps: int, seed: int, params):
    key_reset, key_act, key_step = jax.random.split(jax.random.key(seed), 3)
    actions = jax.random.randint(key_act, (steps, episodes), 0, 4)
    _, first = jax.vmap(env.reset, (0, None))(jax.random.split(key_reset, episodes), params)

    def body(state, xs):
        action, key = xs
        keys = jax.random.split(key, episodes)
        obs, new, reward, terminated, truncated, info = jax.vmap(env.step, (0, 0, 0, None))(
            keys, state, action, params
        )
        return new, (state, action, obs, new, reward, terminated, truncated, info["final_observation"])

    return jax.lax.scan(body, first, (actions, jax.random.split(key_step, steps)))[1]


def rollout(env, episodes: int, steps: int, seed: int, params=None):
    """States, actions and what came of them, (steps, episodes, ...), under random play with restarts."""
    params = env.default_params if params is None else params
    return jax.tree.map(np.asarray, _rollout(env, episodes, steps, seed, params))


def unpack(rows: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(bitboard.unpack(jnp.asarray(rows), side))


class Model:
    """The rules of popgym 1.0.7, one episode at a time."""

    def __init__(self, grid: np.ndarray, start: tuple[int, int], is_escape: bool, limit: int):
        self.grid, self.position, self.is_escape, self.limit = grid, start, is_escape, limit
        self.seen = np.zeros_like(grid, bool)
        self.seen[start] = True
        self.n_free, self.time = int((grid == 0).sum()), 0

    def view(self, action: int) -> np.ndarray:
        y, x = self.position
        cut = self.grid[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        window = np.ones((3, 3), int)
        window[: cut.shape[0], : cut.shape[1]] = cut
        return np.eye(5, dtype=np.float32)[[*window.ravel(), action]].ravel()

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool]:
        last = len(self.grid) - 1
        target = tuple(min(max(p + d, 0), last) for p, d in zip(self.position, MOVES[action], strict=True))
        if self.grid[target] != 1:
            self.position = target
        is_new, self.seen[self.position] = not self.seen[self.position], True
        self.time += 1
        if self.is_escape:
            terminated = bool(self.grid[self.position] == 3)
            reward = float(terminated) - 1 / self.limit
        else:
            terminated = bool(((self.grid != 1) == self.seen).all())
            reward = 1 / self.n_free if is_new else -1 / self.limit
        return self.view(action), reward, terminated, self.time == self.limit - 1


def grid_of(layout, t: int, i: int, side: int) -> np.ndarray:
    grid = unpack(layout.walls[t, i], side).astype(int)
    grid[tuple(layout.start[t, i])] = 2
    if layout.goal[t, i, 0] >= 0:
        grid[tuple(layout.goal[t, i])] = 3
    return grid


def replays(env, trace) -> Iterator[tuple[Model, int, int]]:
    """Each step of a trace with the model that should foretell it."""
    before = trace[0]
    for i in range(before.time.shape[1]):
        model = None
        for t in range(len(before.time)):
            if before.time[t, i] == 0:
                grid = grid_of(before.layout, t, i, env.size + 1)
                start = tuple(before.layout.start[t, i].tolist())
                model = Model(grid, start, isinstance(env, LabyrinthEscape), env.max_episode_length)
            yield model, t, i


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("size", "limit"), [(10, 100), *slow((6, 40), (18, 64))])
def test_every_step_is_the_reference_s(family, size, limit):
    env = family(size=size, max_episode_length=limit)
    trace = rollout(env, 6, 250, seed=size)
    _, action, obs, after, reward, terminated, truncated, final_obs = trace
    ends = 0
    for model, t, i in replays(env, trace):
        seen, r, te, tr = model.step(int(action[t, i]))
        np.testing.assert_array_equal(final_obs[t, i], seen)
        assert reward[t, i] == pytest.approx(r, abs=1e-7)
        assert (terminated[t, i], truncated[t, i]) == (te, tr)
        if te or tr:
            ends += 1
            grid = grid_of(after.layout, t, i, size + 1)
            start = tuple(after.layout.start[t, i].tolist())
            fresh = Model(grid, start, model.is_escape, limit).view(NO_ACTION)
            np.testing.assert_array_equal(obs[t, i], fresh)
        else:
            np.testing.assert_array_equal(obs[t, i], seen)
    assert ends >= 6


def mazes_begun(trace) -> list[tuple]:
    """The walls of every episode that an automatic restart began, in order, by environment."""
    after, done = trace[3], trace[5] | trace[6]
    return [[after.layout.walls[t, i] for t in np.flatnonzero(done[:, i])] for i in range(done.shape[1])]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("limit", [1, 2, 5, 11, 24])
def test_episodes_cut_short_still_begin_in_whole_and_different_mazes(family, limit):
    env = family(size=10)
    trace = rollout(env, 8, 30, seed=limit, params=env.default_params.replace(max_steps_in_episode=limit))
    begun = mazes_begun(trace)
    assert min(len(b) for b in begun) >= 30 // limit
    every = [bytes(w) for b in begun for w in b]
    assert len(set(every)) == len(every)
    openings = 2 if family is LabyrinthEscape else 1
    for walls in begun:
        for rows in walls:
            assert (~unpack(rows, 11)).sum() == 2 * 25 - 1 + openings


def test_the_next_maze_is_ready_by_the_shortest_escape():
    """Nothing is left to finish at the earliest possible end, so that a restart costs O(1)."""
    env = LabyrinthEscape(size=10)
    after = rollout(env, 8, 30, seed=0)[3]
    assert (after.layout.next_maze.remaining[env.shortest_episode - 1] == 0).all()
    for size in range(6, 31, 2):
        for env in (family(size=size) for family in FAMILIES):
            assert env.draw_words // maze.CARVE_WORDS * env.shortest_episode >= env.cells**2 - 1


def test_the_next_maze_is_the_one_that_grew():
    before, _, _, after, _, terminated, truncated, _ = rollout(SMALL[0], 6, 250, seed=1)
    for t, i in zip(*np.nonzero(terminated | truncated), strict=True):
        grown = before.layout.next_maze
        assert grown.remaining[t, i] == 0
        opened = unpack(grown.walls[t, i], 7) & ~unpack(after.layout.walls[t, i], 7)
        expected = {tuple(after.layout.start[t, i]), tuple(after.layout.goal[t, i])}
        assert {tuple(square) for square in np.argwhere(opened)} == expected


@pytest.mark.parametrize("env", SMALL, ids=lambda env: env.name)
def test_rewards_stay_in_their_range(env):
    reward = rollout(env, 6, 250, seed=1)[4]
    low, high = env.reward_range
    assert reward.min() == pytest.approx(low)
    assert reward.max() == pytest.approx(high)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("argument", "value"), [("size", 9), ("size", 4), ("size", 32), ("size", 10.0)])
def test_sizes_are_checked(family, argument, value):
    with pytest.raises(
        ValueError, match=f"{family.__name__}: {argument} must be an even integer from 6 to 30"
    ):
        family(**{argument: value})


def test_a_step_at_least_is_needed():
    with pytest.raises(ValueError, match="max_episode_length must be an integer above 1, got 1"):
        LabyrinthEscape(max_episode_length=1)


@pytest.mark.parametrize(("level", "size"), [("Easy", 10), ("Medium", 14), ("Hard", 18)])
def test_registered_ids(level, size):
    for family in FAMILIES:
        env, params = s5_envs.make(f"{family.__name__}{level}")
        assert isinstance(env, s5_envs.PreviousAction)
        assert env.unwrapped == family(size=size)
        assert params.max_steps_in_episode == 1023
        assert env.unwrapped.observation_space().shape == (50,)
        assert env.observation_space().shape == (50 + 4 + 2,)
