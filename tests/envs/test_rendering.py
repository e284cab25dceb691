"""Pictures: every family in both modes, one size an environment, and what they show."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from PIL import Image

import s5_envs
from s5_envs import rendering
from s5_envs.popgym import (
    Autoencode,
    Battleship,
    Concentration,
    CountRecall,
    HigherLower,
    LabyrinthEscape,
    LabyrinthExplore,
    MineSweeper,
    MultiarmedBandit,
    PositionOnlyCartPole,
    PositionOnlyPendulum,
    RepeatFirst,
    RepeatPrevious,
    bitboard,
)
from s5_envs.rendering import scenes


def play(env, hidden, actions, draws=None):
    """States from the one that ``hidden`` begins, a step for each action, with the draws given."""
    params = env.default_params
    states = [env.start(hidden, params)]
    for i, action in enumerate(actions):
        draw = None if draws is None else draws[i]
        states.append(env.transition(states[-1], jnp.asarray(action), draw, params)[0])
    return states


def text(env, state) -> list[str]:
    return env.render(state, mode="ansi").splitlines()


# The easier ids' pictures are checked with their other manners, in test_gymnasium.
# Of gymnax's and Playground's environments, which MetaControl and MetaDMC are made of, there are none.
@pytest.mark.parametrize(
    "env_id",
    [
        i
        for i in s5_envs.registered_ids()
        if not i.endswith(("Easy", "Medium")) and i not in ("MetaControl-v0", "MetaDMC-v0")
    ],
)
def test_every_family_has_text_and_a_picture_of_constant_size(env_id):
    env, params = s5_envs.make(env_id)
    inner = env.unwrapped if isinstance(env, s5_envs.Wrapper) else env
    _, state = env.reset(jax.random.key(0), params)
    step = jax.jit(env.step)
    sizes, texts = set(), set()
    for i in range(12):
        picture = env.render(state, params, "rgb_array")
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
        assert picture.max() > picture.min()
        sizes.add(picture.shape)
        texts.add(env.render(state, params, "ansi"))
        action = env.action_space(params).sample(jax.random.key(i))
        _, state, *_ = step(jax.random.key(i), state, action, params)
    ((height, width, _),) = sizes
    assert 100 <= height <= 600
    assert 300 <= width <= 500
    assert len(texts) > 1
    assert all(t.startswith(inner.name) for t in texts)


def test_repeat_previous():
    env = RepeatPrevious(k=3)
    states = play(env, jnp.int32(0), [0, 0, 0], draws=jnp.array([1, 2, 3]))
    assert text(env, states[1])[2].split() == ["♠", "♦"]
    assert text(env, states[1])[-1] == " -"
    assert text(env, states[3])[2].split() == ["♦", "♣", "♥"]
    assert text(env, states[3])[-1] == "[♦]"


def test_repeat_first():
    env = RepeatFirst()
    state = play(env, jnp.int32(3), [0], draws=jnp.array([1]))[-1]
    assert [text(env, state)[i].strip() for i in (2, 4)] == ["♦", "[♥]"]


def test_autoencode_recites_backwards():
    env = Autoencode()
    suits = [i % 4 for i in range(52)]
    states = play(env, jnp.int32(suits[0]), [0] * 103, draws=jnp.array(suits[1:] + [0] * 52))
    assert "watch" in text(env, states[50])[0]
    assert text(env, states[50])[-1] == " -"
    for t, suit in ((51, 51), (52, 50), (102, 0)):
        assert "play" in text(env, states[t])[0]
        assert text(env, states[t])[-1] == f"[{'♠♦♣♥'[suits[suit]]}]"
    assert text(env, states[103])[1].startswith("0 cards")


def test_count_recall_shows_the_answer():
    env = CountRecall(deck_type="suits")
    draws = [(jnp.int32(2), jnp.int32(1)), (jnp.int32(2), jnp.int32(2))]
    state = play(env, (jnp.int32(1), jnp.int32(0)), [0, 0], draws)[-1]
    assert text(env, state)[2] == " ♣ [♣]"
    assert text(env, state)[4] == " 0  1 [2] 0"


def test_higher_lower():
    env = HigherLower()
    state = play(env, jnp.int32(0), [0], draws=jnp.array([12]))[-1]
    assert text(env, state)[2].endswith("[ K]")
    assert text(env, state)[4].split() == ["3", *["4"] * 11, "3"]


def test_concentration_turns_cards():
    env = Concentration(num_decks=1, deck_type="ranks")
    cards = jnp.arange(52, dtype=jnp.int8) % 13
    states = play(env, cards, [0, 13, 1, 3], draws=jnp.zeros(4, jnp.int32))
    shown = [" ".join(text(env, s)[1:]).split() for s in states]
    assert shown[0] == ["."] * 52
    assert "1 pairs" in text(env, states[2])[0]
    assert [shown[2][0], shown[2][1:13], shown[2][13]] == ["[A]", ["."] * 12, "[A]"]
    assert shown[3][:3] == ["A", "[2]", "."]
    assert shown[4][:5] == ["A", "[2]", ".", "[4]", "."]


def test_battleship():
    env = Battleship(board_size=8)
    ships = bitboard.pack(np.eye(8, dtype=int)[:, ::-1])
    state = play(env, ships, [(0, 7), (0, 0), (0, 7)])[-1]
    first = text(env, state)[1].split()
    assert first == ["o", *["."] * 6, "x"]
    assert text(env, state)[2].split() == [*["."] * 6, "s", "."]
    assert "1 of 12 found" in text(env, state)[0]


def test_minesweeper():
    env = MineSweeper(dims=(4, 4), num_mines=2)
    mines = np.zeros((4, 4), int)
    mines[0, 0] = mines[3, 3] = 1
    state = play(env, bitboard.pack(mines), [(0, 1), (2, 2)])[-1]
    assert [line.split() for line in text(env, state)[1:]] == [
        ["*", "1", ".", "."],
        ["."] * 4,
        [".", ".", "1", "."],
        [".", ".", ".", "*"],
    ]


def test_bandit():
    env = MultiarmedBandit(num_bandits=3)
    hidden = jnp.array([0.25, -1.0, 0.999])
    state = play(env, hidden, [0], draws=[(jnp.float32(0.1), jnp.float32(0.0))])[-1]
    assert text(env, state)[1].split() == [".25", "?", ".99"]
    assert "paid" in text(env, state)[0]


def test_cartpole_leans_to_where_it_falls():
    env = PositionOnlyCartPole()
    noise = jnp.zeros(2)
    middle = env.start((jnp.zeros(4), noise), env.default_params)
    right = env.start((jnp.array([2.0, 0.0, 0.15, 0.0]), noise), env.default_params)
    assert text(env, middle)[-1] == "|" + "-" * 20 + "o" + "-" * 20 + "|"
    assert text(env, right)[-1].index("o") > 30
    sketch = rendering.describe(env, right)
    (x, _), (tip, _) = sketch.strokes[-1].points
    assert x == pytest.approx(2.0)
    assert tip > x


def test_pendulum_hangs_at_half_a_turn():
    env = PositionOnlyPendulum()
    hanging = env.start((jnp.array([np.pi, 0.0]), jnp.zeros(2)), env.default_params)
    sketch = rendering.describe(env, hanging)
    assert sketch.strokes[1].points[1] == pytest.approx((0.0, -1.0), abs=1e-6)


@pytest.mark.parametrize("family", [LabyrinthEscape, LabyrinthExplore])
def test_labyrinth(family):
    env = family(size=6)
    grid = np.ones((7, 7), int)
    grid[1, 1:6] = 0
    grid[0, 1], grid[0, 5] = 2, 3 if family is LabyrinthEscape else 1
    layout = env.layout_of_grid(grid, (0, 1), (0, 5))
    states = play(env, layout, [3, 1, 1], draws=[layout.next_maze] * 3)
    rows = text(env, states[-1])[1:]
    goal = "G " if family is LabyrinthEscape else "██"
    assert rows[0] == "██" + "S " + "██" * 3 + goal + "██"
    assert rows[1] == "██" + "··" * 2 + "@ " + "  " * 2 + "██"
    assert rows[2:] == ["██" * 7] * 5


def test_memory_chain():
    env, _ = s5_envs.make("MemoryChain-bsuite", memory_length=4, num_bits=3)
    states = play(env, (jnp.array([1, 0, 1]), jnp.int32(2)), [0] * 5)
    captions = [text(env, s)[0].split(": ")[1] for s in states]
    assert captions == ["remember", "remember", "wait", "wait", "answer", "answer"]
    assert text(env, states[4])[2] == " 1  0 [1]"


@struct.dataclass
class CountState(s5_envs.EnvState):
    board: jax.Array


@dataclass(frozen=True)
class Count(s5_envs.Environment):
    """An environment that nobody drew."""

    episode_length = 5


def test_an_environment_without_a_picture_shows_its_fields():
    state = CountState(time=jnp.int32(3), board=jnp.arange(10.0))
    lines = text(Count(), state)
    assert lines[0] == "Count"
    assert "time 3" in lines
    assert "board 0 1 2 3 4 5 6 7 ..." in lines
    assert Count().render(state, mode="rgb_array").shape[2] == 3


class NamedState(NamedTuple):
    time: int
    key: Any


@pytest.mark.parametrize(
    ("state", "lines"),
    [
        (NamedState(3, jax.random.key(7)), ["time 3", "key 0 7"]),
        ({"position": jnp.ones(2), "parts": (1, jnp.zeros(1))}, ["parts 1 0", "position 1 1"]),
        (jnp.arange(2), ["0 1"]),
        ((), ["(no state)"]),
    ],
)
def test_a_state_may_be_any_pytree(state, lines):
    """Of an environment from elsewhere, which need not have a name either."""
    scene = rendering.describe(object(), state)
    assert [line for line in scene.to_text().splitlines() if line] == ["object", *lines]
    assert scene.to_image().shape[2] == 3


def test_a_user_s_own_picture():
    @dataclass(frozen=True)
    class Drawn(Count):
        """An environment with a picture."""

    @rendering.renders(Drawn)
    def describe(env, state):
        return scenes.Tiles(env.name, ((scenes.Tile(str(state.time)),),))

    assert text(Drawn(), CountState(time=jnp.int32(3), board=jnp.zeros(1))) == ["Drawn", " 3"]


@pytest.mark.parametrize("mode", ["human", None, "rgb"])
def test_unknown_modes_are_named(mode):
    env, params = s5_envs.make("RepeatFirstEasy")
    _, state = env.reset(jax.random.key(0), params)
    with pytest.raises(ValueError, match=f"render: unknown mode {mode!r}; expected 'ansi' or 'rgb_array'"):
        env.render(state, params, mode)


def test_batches_are_refused():
    env, params = s5_envs.make("RepeatFirstEasy")
    _, states = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(0), 2), params)
    with pytest.raises(ValueError, match=re.escape("render: expected one state, got a batch of (2,)")):
        env.render(states, params)


@pytest.mark.parametrize("mode", ["ansi", "rgb_array"])
def test_gymnasium_shows_the_end_of_an_episode_until_the_next_begins(mode):
    env, params = s5_envs.make("BattleshipEasy", flatten_action=True)
    env, params = s5_envs.EpisodeStatistics(env), params.replace(max_steps_in_episode=2)
    single = s5_envs.GymnaxEnv(env, params, render_mode=mode)
    next_step = s5_envs.GymnaxVectorEnv(env, params, 2, "NEXT_STEP", render_mode=mode)
    same_step = s5_envs.GymnaxVectorEnv(env, params, 2, "SAME_STEP", render_mode=mode)
    for made in (single, next_step, same_step):
        made.reset(seed=3)
    begin = single.render()
    shots = [9, 20]
    for shot in shots:
        single.step(shot)
        next_step.step([shot, 0])
        same_step.step([shot, 0])
    end, frames = single.render(), next_step.render()
    assert len(frames) == 2
    np.testing.assert_array_equal(end, frames[0])
    assert np.any(np.asarray(end) != np.asarray(begin))
    if mode == "ansi":
        assert "after 2 of 64 shots" in end
        assert sum(line.count("o") + line.count("x") for line in end.splitlines()[1:]) == 2
        assert "after 0 of 64 shots" in same_step.render()[0]
    single.reset()
    next_step.step([5, 5])
    np.testing.assert_array_equal(single.render(), next_step.render()[0])
    np.testing.assert_array_equal(single.render(), same_step.render()[0])


def test_rendering_without_a_mode_warns():
    env = s5_envs.GymnaxEnv("RepeatFirstEasy")
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="draws nothing without a render_mode"):
        assert env.render() is None


def test_gif(tmp_path):
    frames = [np.full((20, 30, 3), shade, np.uint8) for shade in (0, 120, 250)]
    path = rendering.save_gif(frames, tmp_path / "new" / "out.gif", fps=5)
    with Image.open(path) as gif:
        assert (gif.n_frames, gif.size, gif.info["duration"], gif.info["loop"]) == (3, (30, 20), 200, 0)
        for i, frame in enumerate(frames):
            gif.seek(i)
            assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - frame).max() < 4


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "no frames"),
        ([np.zeros((4, 4, 3))], "frame 0 must be"),
        ([np.zeros((4, 4), np.uint8)], "frame 0 must be"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)], "frame 1 is"),
    ],
)
def test_wrong_frames_are_named(tmp_path, frames, message):
    with pytest.raises(ValueError, match=message):
        rendering.save_gif(frames, tmp_path / "out.gif")


@pytest.mark.parametrize("fps", [0, -1, 51])
def test_wrong_speeds_are_named(tmp_path, fps):
    with pytest.raises(ValueError, match="fps must be above 0"):
        rendering.save_gif([np.zeros((4, 4, 3), np.uint8)], tmp_path / "out.gif", fps)
