"""``make``: ids, arguments, what it wraps, and what it says when it cannot."""

from __future__ import annotations

import re

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import s5_envs
from s5_envs.base import Environment
from s5_envs.listing import registry_table
from tests.envs.reference import REFERENCES

IDS = s5_envs.popgym_ids()


def test_all_48_ids() -> None:
    assert len(IDS) == 48
    assert {r.prefix + v for r in REFERENCES.values() for v in ("Easy", "Medium", "Hard")} == set(IDS)


@pytest.mark.parametrize("env_id", IDS)
def test_spaces_and_needs_are_the_references(env_id: str) -> None:
    from gymnasium.spaces import Box, flatdim

    family = next(f for f, r in REFERENCES.items() if env_id.startswith(r.prefix))
    reference = REFERENCES[family]
    theirs = reference.build(family, env_id.removeprefix(reference.prefix))
    env, params = s5_envs.make(env_id, previous_action=False)
    space = s5_envs.spaces.to_gymnasium(env.observation_space(params))
    # What is discrete is one-hot here, as gymnasium flattens it.
    assert space.shape == (flatdim(theirs.observation_space),)
    if isinstance(theirs.observation_space, Box):
        assert space == theirs.observation_space
    else:
        assert space == Box(0.0, 1.0, space.shape)
    assert s5_envs.spaces.to_gymnasium(env.action_space(params)) == theirs.action_space
    assert env.obs_requires_prev_action == theirs.obs_requires_prev_action
    assert params.max_steps_in_episode == env.episode_length


@pytest.mark.parametrize("env_id", ["BattleshipEasy", "RepeatPreviousEasy"])
def test_previous_action_is_the_familys_to_ask_for(env_id: str) -> None:
    needs = env_id == "BattleshipEasy"
    assert isinstance(s5_envs.make(env_id)[0], s5_envs.PreviousAction) == needs
    assert isinstance(s5_envs.make(env_id, previous_action=True)[0], s5_envs.PreviousAction)
    assert isinstance(s5_envs.make(env_id, previous_action=False)[0], Environment)


def test_arguments_replace_the_ids_own() -> None:
    env, _ = s5_envs.make("RepeatPreviousEasy", k=8)
    assert env == s5_envs.popgym.RepeatPrevious(num_decks=1, k=8)
    assert env != s5_envs.make("RepeatPreviousEasy")[0]
    assert s5_envs.make("MultiarmedBanditEasy", max_episode_length=7)[1].max_steps_in_episode == 7


@pytest.mark.parametrize(
    ("env_id", "arguments", "message"),
    [
        ("RepeatPreviusEasy", {}, "unknown environment 'RepeatPreviusEasy'; did you mean RepeatPreviousEasy"),
        ("cartpole-v1", {}, "did you mean CartPole-v1"),
        ("zzz", {}, "unknown environment 'zzz'"),
        (
            "RepeatPreviousEasy",
            {"lag": 3},
            "RepeatPreviousEasy has no argument 'lag'; it takes: k, num_decks",
        ),
        ("CartPole-v1", {"lag": 3}, "CartPole-v1 has no argument 'lag'"),
        ("RepeatPreviousEasy", {"k": 52}, "k must be from 1 to 51, got 52"),
        ("RepeatPreviousEasy", {"num_decks": 0}, "num_decks must be an integer in"),
        ("CountRecallEasy", {"deck_type": "shapes"}, "deck_type must be one of colors, suits, ranks"),
        ("ConcentrationEasy", {"deck_type": "suits"}, "deck_type must be one of colors, ranks"),
        ("BattleshipEasy", {"board_size": 4}, "may not fit"),
        ("BattleshipEasy", {"ship_sizes": ()}, "ship_sizes must be positive"),
        ("MineSweeperEasy", {"num_mines": 15}, "num_mines must be in"),
        ("MultiarmedBanditEasy", {"num_bandits": 0}, "num_bandits must be a positive integer"),
        ("PositionOnlyCartPoleEasy", {"max_episode_length": 0}, "max_episode_length must be"),
        ("NoisyPositionOnlyPendulumEasy", {"noise_sigma": -1.0}, "noise_sigma must not be negative"),
        ("MemoryChain-bsuite", {"memory_length": 0}, "memory_length must be a positive integer"),
    ],
)
def test_one_clear_line(env_id: str, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        s5_envs.make(env_id, **arguments)
    assert "\n" not in str(caught.value)


def test_an_id_is_registered_once() -> None:
    with pytest.raises(ValueError, match="'RepeatFirstEasy' is already registered"):
        s5_envs.register("RepeatFirstEasy", s5_envs.popgym.RepeatFirst)


def test_gymnax_ids_work() -> None:
    assert "CartPole-v1" in s5_envs.gymnax_ids()
    env, params = s5_envs.make("CartPole-v1", max_steps_in_episode=17)
    assert params.max_steps_in_episode == 17
    assert type(env) is type(gymnax.make("CartPole-v1")[0])


@pytest.mark.parametrize(("length", "bits"), [(1, 1), (6, 3)])
def test_memory_chain_plays_as_gymnaxs_does_but_ends_with_its_length(length: int, bits: int) -> None:
    ours, params = s5_envs.make("MemoryChain-bsuite", memory_length=length, num_bits=bits)
    assert params.max_steps_in_episode == length + 1
    theirs, theirs_params = gymnax.make("MemoryChain-bsuite", num_bits=bits)
    theirs_params = theirs_params.replace(memory_length=length)
    key = jax.random.key(5)
    obs, state = theirs.reset(key, theirs_params)
    mine = ours.start((state.context, state.query), params)
    space = s5_envs.spaces.to_gymnasium(ours.observation_space(params))
    for t in range(length + 1):
        np.testing.assert_allclose(ours.get_obs(mine), obs, atol=1e-6)
        assert space.contains(np.asarray(ours.get_obs(mine)))
        obs, state, reward, terminated, _ = theirs.step_env(key, state, 1, theirs_params)
        mine, my_reward, my_terminated = ours.transition(mine, jnp.int32(1), None, params)
        assert float(my_reward) == float(reward)
        assert bool(my_terminated) == bool(terminated) == (t == length)
        assert not ours.is_truncated(mine, params)


def test_listing_has_a_line_for_every_id() -> None:
    table = registry_table()
    assert [line.env_id for line in table] == list(IDS)
    for line in table:
        assert line.reward_low <= line.reward_high
        assert -1.5 <= line.random_score <= line.best_score <= 1.0001
