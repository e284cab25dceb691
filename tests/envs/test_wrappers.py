"""Wrappers stay right across automatic resets."""

from __future__ import annotations

from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import s5_envs
from s5_envs import spaces
from s5_envs.base import Environment, EnvParams, EnvState


class Countdown(Environment):
    """Shows 10 * its own time, terminates at step 3; truncated instead where the limit is lower."""

    draw_words = 0
    deal_words = 0
    episode_length = 3

    def __init__(self, space: spaces.Space):
        self.space = space

    def deal(self, words: jax.Array, params: EnvParams) -> None:
        return

    def start(self, hidden: None, params: EnvParams) -> EnvState:
        return EnvState(time=jnp.int32(0))

    def draw(self, words: jax.Array, state: EnvState, params: EnvParams) -> None:
        return

    def transition(self, state: EnvState, action: Any, draw: None, params: EnvParams) -> Any:
        state = EnvState(time=state.time + 1)
        return state, state.time.astype(jnp.float32), state.time == 3

    def get_obs(self, state: EnvState, params: Any = None, key: Any = None) -> jax.Array:
        return 10.0 * state.time[None].astype(jnp.float32)

    def observation_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(0.0, 30.0, (1,))

    def action_space(self, params: Any = None) -> spaces.Space:
        return self.space


def _rollout(env: Any, actions: Any, params: Any = None) -> list[dict[str, Any]]:
    """Step through ``actions``; each entry has what reset or step returned."""
    key = jax.random.key(0)
    obs, state = env.reset(key, params)
    seen = [{"obs": np.asarray(obs), "state": state}]
    for action in actions:
        key, sub = jax.random.split(key)
        obs, state, reward, terminated, truncated, info = env.step(sub, state, action, params)
        seen.append(
            {
                "obs": np.asarray(obs),
                "state": state,
                "reward": float(reward),
                "terminated": bool(terminated),
                "truncated": bool(truncated),
                "info": jax.tree.map(np.asarray, info),
            }
        )
    return seen


FIRST, LATER = [0.0, 1.0], [1.0, 0.0]


@pytest.mark.parametrize(("limit", "flag"), [(3, "terminated"), (2, "truncated")])
def test_null_action_and_first_step_flag_return_after_automatic_resets(limit: int, flag: str) -> None:
    env = s5_envs.PreviousAction(Countdown(spaces.Discrete(3)))
    seen = _rollout(env, [2] * 7, EnvParams(max_steps_in_episode=limit))
    null, two = [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]
    np.testing.assert_array_equal(seen[0]["obs"], [0.0, *null, *FIRST])
    for t in range(1, 8):
        ended = t % limit == 0
        assert seen[t][flag] == ended
        expected = [0.0, *null, *FIRST] if ended else [10.0 * (t % limit), *two, *LATER]
        np.testing.assert_array_equal(seen[t]["obs"], expected)
        # The step's own observation: the action just taken, no flag, whether or not the episode ended.
        final = [10.0 * ((t - 1) % limit + 1), *two, *LATER]
        np.testing.assert_array_equal(seen[t]["info"]["final_observation"], final)


@pytest.mark.parametrize(
    ("space", "action", "null", "shown"),
    [
        (spaces.MultiDiscrete((2, 3)), [1, 2], [1, 0, 1, 0, 0], [0, 1, 0, 0, 1]),
        (spaces.Box(-2.0, 2.0, (2,)), [0.5, -1.0], [0, 0], [0.5, -1.0]),
        (spaces.Box(1.0, 2.0, (1,)), [1.5], [1.0], [1.5]),
        (spaces.Box(np.array([1.0, -1.0]), np.array([2.0, 1.0]), (2,)), [1.5, 1.0], [1.0, -1.0], [1.5, 1.0]),
    ],
)
def test_every_kind_of_action_is_shown(space: Any, action: Any, null: Any, shown: Any) -> None:
    env = s5_envs.PreviousAction(Countdown(space))
    seen = _rollout(env, [jnp.array(action)] * 3)
    np.testing.assert_array_equal(seen[0]["obs"][1:-2], null)
    np.testing.assert_array_equal(seen[1]["obs"][1:-2], shown)
    np.testing.assert_array_equal(seen[3]["obs"][1:-2], null)
    assert env.observation_space().shape == seen[0]["obs"].shape


def test_the_flag_can_be_left_out() -> None:
    env = s5_envs.PreviousAction(Countdown(spaces.Discrete(3)), first_step_flag=False)
    assert env.observation_space().shape == (4,)
    np.testing.assert_array_equal(_rollout(env, [1])[1]["obs"], [10.0, 0.0, 1.0, 0.0])


def test_episode_statistics() -> None:
    env = s5_envs.EpisodeStatistics(s5_envs.PreviousAction(Countdown(spaces.Discrete(3))))
    seen = _rollout(env, [0] * 7)
    infos = [entry["info"] for entry in seen[1:]]
    assert [bool(i["returned_episode"]) for i in infos] == [False, False, True] * 2 + [False]
    assert [float(i["returned_episode_returns"]) for i in infos] == [0, 0, 6, 6, 6, 6, 6]
    assert [int(i["returned_episode_lengths"]) for i in infos] == [0, 0, 3, 3, 3, 3, 3]
    assert int(env.unwrapped_state(seen[4]["state"]).time) == 1


def test_frame_stack() -> None:
    env = s5_envs.FrameStack(Countdown(spaces.Discrete(3)), num_frames=3)
    seen = _rollout(env, [0] * 4)
    assert env.observation_space().shape == (3, 1)
    frames = [entry["obs"][:, 0].tolist() for entry in seen]
    assert frames == [[0, 0, 0], [0, 0, 10], [0, 10, 20], [0, 0, 0], [0, 0, 10]]
    assert seen[3]["info"]["final_observation"][:, 0].tolist() == [10, 20, 30]


def test_flatten_action_is_row_major() -> None:
    env, params = s5_envs.make("BattleshipEasy", flatten_action=True)
    assert env.action_space(params).n == 64
    inner, _ = s5_envs.make("BattleshipEasy")
    key = jax.random.key(1)
    _, state = env.reset(key, params)
    flat, parts = env.step(key, state, 19, params), inner.step(key, state, jnp.array([2, 3]), params)
    np.testing.assert_array_equal(flat[0], parts[0])
    np.testing.assert_array_equal(flat[0][2:18], spaces.encode(spaces.MultiDiscrete((8, 8)), [2, 3]))


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Catch-bsuite", "FourRooms-misc"])
def test_gymnax_environments_can_be_wrapped(env_id: str) -> None:
    inner, params = gymnax.make(env_id)
    env = s5_envs.EpisodeStatistics(s5_envs.PreviousAction(s5_envs.FlattenObservation(inner)))
    keys = jax.random.split(jax.random.key(0), 4)
    obs, state = jax.vmap(env.reset, (0, None))(keys, params)
    size = env.observation_space(params).shape
    assert obs.shape == (4, *size)
    actions = jnp.zeros(4, jnp.int32)
    obs, _, _, _, _, info = jax.vmap(env.step, (0, 0, 0, None))(keys, state, actions, params)
    assert obs.shape == info["final_observation"].shape == (4, *size)
    assert obs.dtype == jnp.float32


def test_wrappers_are_equal_by_configuration() -> None:
    def build(k: int, frames: int) -> Any:
        env, _ = s5_envs.make("RepeatPreviousEasy", previous_action=True, k=k)
        return s5_envs.FrameStack(s5_envs.EpisodeStatistics(env), frames)

    assert build(4, 2) == build(4, 2)
    assert hash(build(4, 2)) == hash(build(4, 2))
    assert build(4, 2) != build(5, 2)
    assert build(4, 2) != build(4, 3)


def test_bad_wrapping_is_named() -> None:
    env, _ = s5_envs.make("RepeatPreviousEasy")
    with pytest.raises(ValueError, match="FlattenAction: RepeatPrevious has actions Discrete"):
        s5_envs.FlattenAction(env)
    with pytest.raises(ValueError, match="num_frames must be a positive integer, got 0"):
        s5_envs.FrameStack(env, 0)
