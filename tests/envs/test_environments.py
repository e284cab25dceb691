"""What every environment must do: stay in its spaces, end in time, restart by itself, compile once."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import s5_envs
from s5_envs import spaces

NUM_ENVS = 32
EASY = tuple(env_id for env_id in s5_envs.popgym_ids() if env_id.endswith("Easy"))
NEVER_TRUNCATED = ("Autoencode", "CountRecall", "HigherLower", "RepeatFirst", "RepeatPrevious", "MemoryChain")
ONLY_TRUNCATED = ("MultiarmedBandit", "PositionOnlyPendulum", "NoisyPositionOnlyPendulum")


def _play(env_id: str, num_steps: int, **config: Any) -> tuple[Any, Any, Any]:
    """Play at random: environment, parameters, and what reset and every step returned, ``(T, N, ...)``."""
    env, params = s5_envs.make(env_id, previous_action=True, **config)
    env = s5_envs.EpisodeStatistics(env)
    space = env.action_space(params)

    @jax.jit
    def play(key: jax.Array) -> Any:
        key_reset, key_steps = jax.random.split(key)
        obs, state = jax.vmap(env.reset, (0, None))(jax.random.split(key_reset, NUM_ENVS), params)

        def step(state: Any, key: jax.Array) -> Any:
            keys = jax.random.split(key, (2, NUM_ENVS))
            action = jax.vmap(space.sample)(keys[0])
            obs, state, reward, terminated, truncated, info = jax.vmap(env.step, (0, 0, 0, None))(
                keys[1], state, action, params
            )
            return state, (obs, action, reward, terminated, truncated, info)

        return obs, jax.lax.scan(step, state, jax.random.split(key_steps, num_steps))[1]

    return env, params, jax.tree.map(np.asarray, play(jax.random.key(7)))


@pytest.mark.parametrize("env_id", [*EASY, "MemoryChain-bsuite"])
def test_random_play_keeps_every_promise(env_id: str) -> None:
    config = {"max_episode_length": 40} if env_id.startswith("Labyrinth") else {}
    env, params, (first, (obs, action, reward, terminated, truncated, info)) = _play(env_id, 250, **config)
    family, inner = env.unwrapped.name, env.unwrapped
    box = env.observation_space(params)
    done, final = terminated | truncated, info["final_observation"]

    for seen in (first, obs, final):
        assert seen.dtype == np.float32
        assert np.isfinite(seen).all()
        assert (seen >= np.asarray(box.low)).all()
        assert (seen <= np.asarray(box.high)).all()
    low, high = inner.reward_range
    assert reward.min() >= low - 1e-6
    assert reward.max() <= high + 1e-6

    assert done.any(axis=0).all(), "every environment ends an episode, and goes on"
    lengths = info["returned_episode_lengths"][done]
    assert lengths.max() <= inner.episode_length
    assert not (truncated.any() and family in NEVER_TRUNCATED)
    assert not (terminated.any() and family in ONLY_TRUNCATED)
    if family in (*NEVER_TRUNCATED, *ONLY_TRUNCATED) or env_id == "MemoryChain-bsuite":
        assert (lengths == inner.episode_length).all()

    action_space = env.action_space(params)
    encode = jax.vmap(jax.vmap(lambda a: spaces.encode(action_space, a)))
    shown_action, shown_flag = obs[..., -2 - encode(action).shape[-1] : -2], obs[..., -2:]
    null = np.asarray(spaces.encode(action_space, spaces.null_value(action_space)))
    np.testing.assert_array_equal(shown_flag, np.where(done[..., None], [0.0, 1.0], [1.0, 0.0]))
    np.testing.assert_array_equal(shown_action, np.where(done[..., None], null, encode(action)))
    np.testing.assert_array_equal(first[..., -2:], np.broadcast_to([0.0, 1.0], (NUM_ENVS, 2)))
    # Where nothing ended, what the step led to is what is seen (but for a cosine computed in another loop).
    np.testing.assert_allclose(final[~done], obs[~done], atol=1e-6)
    np.testing.assert_array_equal(final[..., -2:], np.broadcast_to([1.0, 0.0], final[..., -2:].shape))


@pytest.mark.parametrize("env_id", ["RepeatPreviousEasy", "BattleshipEasy", "LabyrinthEscapeEasy"])
def test_equal_environments_share_one_compilation(env_id: str) -> None:
    step = type(s5_envs.make(env_id, previous_action=False)[0]).step
    before = step._cache_size()
    for limit in (30, 40):
        env, params = s5_envs.make(env_id, previous_action=False)
        params = params.replace(max_steps_in_episode=limit)
        _, state = env.reset(jax.random.key(limit), params)
        action = spaces.null_value(env.action_space(params))
        for i in range(3):
            _, state, *_ = env.step(jax.random.key(i), state, action, params)
    assert step._cache_size() - before <= 1


@pytest.mark.parametrize("env_id", ["RepeatFirstEasy", "MineSweeperEasy", "PositionOnlyCartPoleEasy"])
def test_a_lower_limit_truncates(env_id: str) -> None:
    env, params = s5_envs.make(env_id, previous_action=False)
    params = params.replace(max_steps_in_episode=2)
    _, state = env.reset(jax.random.key(0), params)
    # Two different corners: at most one of two mines, and no mine in most boards.
    for t, action in enumerate(spaces.null_value(env.action_space(params)) for _ in range(2)):
        _, state, _, terminated, truncated, _ = env.step(jax.random.key(t), state, action, params)
        assert not terminated
        assert bool(truncated) == (t == 1)
    assert int(state.time) == 0


@pytest.mark.parametrize("env_id", ["RepeatPreviousEasy", "NoisyPositionOnlyPendulumEasy"])
def test_step_env_is_the_step_without_the_reset(env_id: str) -> None:
    env, params = s5_envs.make(env_id)
    key = jax.random.key(2)
    _, state = env.reset(key, params)
    action = spaces.null_value(env.action_space(params))
    obs, after, *_ = env.step(key, state, action, params)
    assert int(after.time) == 1
    np.testing.assert_array_equal(obs, env.get_obs(env.final_state(key, state, action, params)))
    obs, after, reward, _, _ = env.step_env(key, state, action, params)
    assert int(after.time) == 1
    assert obs.shape == env.observation_space(params).shape
    assert reward.dtype == jnp.float32


def test_the_same_key_gives_the_same_episode() -> None:
    first, again = (_play("ConcentrationEasy", 20)[2] for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("env_id", [*s5_envs.popgym_ids(), "MemoryChain-bsuite"])
def test_types_stay_what_they_are(env_id: str, x64: bool) -> None:
    """A state can be carried through a scan, whatever JAX's default precision."""
    with jax.enable_x64(x64):
        env, params = s5_envs.make(env_id)
        key = jax.random.key(0)
        obs, state = jax.eval_shape(env.reset, key, params)
        action = spaces.null_value(env.action_space(params))
        next_obs, after, reward, terminated, truncated, _ = jax.eval_shape(
            env.step, key, state, action, params
        )
        assert jax.tree.map(lambda x: (x.shape, x.dtype), (obs, state)) == jax.tree.map(
            lambda x: (x.shape, x.dtype), (next_obs, after)
        )
        assert obs.shape == env.observation_space(params).shape
        assert obs.dtype == reward.dtype == jnp.float32
        assert terminated.dtype == truncated.dtype == bool
        assert reward.shape == terminated.shape == truncated.shape == ()
