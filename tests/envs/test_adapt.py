"""Environments from elsewhere: adapted where that is safe, refused in one line that names them otherwise."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from typing import Any

import gymnasium
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import s5_envs
from s5_envs import GymnaxEnv, GymnaxVectorEnv, spaces
from s5_envs.adapt import Adapted
from tests.envs.elsewhere import FAULTS, LENGTH, Columns, FiveValues, Plain, Vendored, faulty
from tests.marks import slow

_numbers = itertools.count()


def _registered(make_env: Any) -> str:
    env_id = f"Elsewhere{next(_numbers)}"
    s5_envs.register(env_id, make_env)
    return env_id


def _episodes(env: Any, steps: int = 2 * LENGTH + 1) -> list[Any]:
    """What an environment gives in a few steps, as numpy."""
    params = env.default_params
    obs, state = env.reset(jax.random.key(0), params)
    seen = [obs]
    step = jax.jit(env.step)
    for t in range(steps):
        obs, state, reward, terminated, truncated, info = step(jax.random.key(t), state, 1, params)
        seen.append((obs, reward, terminated, truncated, info["final_observation"]))
    return jax.tree.map(np.asarray, seen)


def test_an_environment_that_does_as_it_should_stays_itself() -> None:
    for env in (Plain(), gymnax.make("CartPole-v1")[0], s5_envs.make("RepeatPreviousEasy")[0]):
        assert s5_envs.adapt(env) is env
    assert type(s5_envs.make("Pendulum-v1")[0]) is type(gymnax.make("Pendulum-v1")[0])
    wrapped = s5_envs.EpisodeStatistics(Plain())
    assert s5_envs.adapt(wrapped) is wrapped


@pytest.mark.parametrize("make_env", [FiveValues, Vendored])
def test_five_values_are_six_with_done_for_terminated(make_env: Any) -> None:
    with pytest.warns(UserWarning, match=rf"^{make_env.__name__}: step gives gymnax 0.x's five values"):
        env = s5_envs.adapt(make_env())
    for old, new in zip(_episodes(env), _episodes(Plain()), strict=True):
        for mine, theirs in zip(old[:4], new[:4], strict=True):
            np.testing.assert_array_equal(mine, theirs)
            assert mine.dtype == theirs.dtype
    lengths = [t for t, step in enumerate(_episodes(env)[1:], 1) if step[2]]
    assert lengths == [LENGTH, 2 * LENGTH]


def test_the_warning_comes_once_and_not_at_every_step() -> None:
    env_id = _registered(FiveValues)
    with pytest.warns(UserWarning, match=env_id) as seen:
        env = GymnaxVectorEnv(env_id, num_envs=2)
    assert len(seen) == 1
    env.reset(seed=0)
    for _ in range(LENGTH):
        _, rewards, terminated, truncated, _ = env.step(np.zeros(2, int))
    assert terminated.all()
    assert not truncated.any()
    assert (rewards == LENGTH).all()


def test_more_axes_and_flags_that_are_numbers_are_brought_into_shape() -> None:
    env = s5_envs.adapt(Columns())
    assert isinstance(env, Adapted)
    jax.tree.map(np.testing.assert_array_equal, _episodes(env), _episodes(Plain()))
    single = GymnaxEnv(Columns())
    single.reset(seed=0)
    obs, reward, terminated, truncated, _ = single.step(0)
    assert single.observation_space.contains(obs)
    assert (reward, terminated, truncated) == (1.0, False, False)


NESTED = spaces.Dict(
    {
        "speed": spaces.Box(0.0, 9.0, (2, 2)),
        "card": spaces.Discrete(5),
        "both": spaces.Tuple([spaces.MultiDiscrete((2, 3)), spaces.Box(0, 20, (2,), jnp.int32)]),
        "again": spaces.Dict({"z": spaces.Discrete(2), "a": spaces.Box(-1.0, 30.0, (1,))}),
    }
)


@pytest.mark.parametrize(
    "space",
    [
        NESTED,
        NESTED.spaces["both"],
        spaces.Discrete(6),
        spaces.MultiDiscrete((3, 4)),
        spaces.Box(0, 50, (4, 5)),
    ],
)
def test_flattened_as_gymnasium_flattens(space: Any) -> None:
    flat = s5_envs.FlattenObservation(s5_envs.adapt(Plain(space)))
    theirs = GymnaxEnv(Plain(space))
    expected = gymnasium.spaces.flatten_space(theirs.observation_space)
    mine = spaces.to_gymnasium(flat.observation_space())
    np.testing.assert_array_equal(mine.low, expected.low.astype(np.float32))
    np.testing.assert_array_equal(mine.high, expected.high.astype(np.float32))
    obs, _ = theirs.reset(seed=0)
    for step in _episodes(flat, LENGTH - 1):
        shown = step if isinstance(step, np.ndarray) else step[0]
        assert theirs.observation_space.contains(obs)
        np.testing.assert_array_equal(shown, gymnasium.spaces.flatten(theirs.observation_space, obs))
        obs = theirs.step(0)[0]


def test_a_dict_may_come_as_a_dataclass_and_a_tuple_as_a_list() -> None:
    @jax.tree_util.register_dataclass
    @dataclass
    class Seen:
        a: Any
        b: Any

    class Loose(Plain):
        def observe_time(self, time: jax.Array) -> Any:
            return Seen(jnp.full(2, time, jnp.float32), [time % 3, time % 2])

    space = spaces.Dict(
        {"a": spaces.Box(0.0, 9.0, (2,)), "b": spaces.Tuple([spaces.Discrete(3), spaces.Discrete(2)])}
    )
    env = GymnaxEnv(Loose(space))
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(obs)
    assert env.observation_space.contains(env.step(0)[0])


def test_spaces_of_gymnasium_are_understood() -> None:
    theirs = gymnasium.spaces.Dict(
        {
            "bits": gymnasium.spaces.MultiBinary(3),
            "pair": gymnasium.spaces.MultiDiscrete([2, 3]),
            "x": gymnasium.spaces.Box(-1, 1, (2,)),
        }
    )

    class Borrowed(Plain):
        def observe_time(self, time: jax.Array) -> Any:
            return {
                "bits": (time % 2 * jnp.ones(3)).astype(jnp.int8),
                "pair": jnp.array([1, 2]),
                "x": jnp.ones(2),
            }

    env = s5_envs.adapt(Borrowed(theirs, gymnasium.spaces.Discrete(2)))
    assert isinstance(env.action_space(), spaces.Discrete)
    flat = s5_envs.FlattenObservation(env)
    obs, _ = flat.reset(jax.random.key(0), flat.default_params)
    expected = {"bits": np.zeros(3, np.int8), "pair": np.array([1, 2]), "x": np.ones(2, np.float32)}
    np.testing.assert_array_equal(obs, gymnasium.spaces.flatten(theirs, expected))


def test_an_image_of_wide_integers_has_the_bytes_that_its_space_says() -> None:
    class Wide(Plain):
        def observe_time(self, time: jax.Array) -> Any:
            return jnp.full(self.space.shape, time)

    env = s5_envs.adapt(Wide(spaces.Box(0, 255, (40, 40, 1), jnp.uint8)))
    obs, _ = env.reset(jax.random.key(0), env.default_params)
    assert obs.dtype == jnp.uint8
    with pytest.raises(ValueError, match=r"reset gives an observation float32\[40, 40, 1\], expected uint8"):
        s5_envs.adapt(_floats(Wide)(env.env.space))


def _floats(cls: Any) -> Any:
    return type("Floats", (cls,), {"observe_time": lambda self, time: jnp.zeros(self.space.shape)})


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_said_when_it_is_built(fault: str) -> None:
    env_id = _registered(lambda: faulty(fault))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=rf"^{env_id}: [^\n]+$") as refused:
            s5_envs.make(env_id)
    assert FAULTS[fault] in str(refused.value)


def test_every_consumer_refuses_it_by_name() -> None:
    from s5_adapters.purejax import PPOConfig, make_train
    from s5_adapters.rllib._envs import env_creator
    from s5_adapters.sb3 import JaxVecEnv

    env_id = _registered(lambda: faulty("four values of step"))
    for build in (
        lambda: GymnaxEnv(env_id),
        lambda: GymnaxVectorEnv(env_id, num_envs=2),
        lambda: JaxVecEnv(env_id, 2),
        lambda: env_creator(env_id)({}),
        lambda: make_train(PPOConfig(env_id=env_id)),
    ):
        with pytest.raises(ValueError, match=rf"^{env_id}: step gives 4 values"):
            build()
    for env in (faulty("many rewards"), s5_envs.EpisodeStatistics(faulty("many rewards"))):
        with pytest.raises(ValueError, match=r"^Faulty: step gives a reward float32\[2\]"):
            GymnaxEnv(env)


@pytest.mark.parametrize(
    ("space", "action", "message"),
    [
        (None, spaces.Dict({"a": spaces.Discrete(2)}), "action space Dict"),
        (gymnasium.spaces.Text(3), None, "observation space: got Text"),
        (gymnasium.spaces.Discrete(3, start=1), None, "observation space: got Discrete"),
    ],
)
def test_spaces_of_other_kinds_are_refused(space: Any, action: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^Plain: {message}[^\n]+expected [^\n]*MultiDiscrete"):
        s5_envs.adapt(Plain(space, action))


@pytest.mark.parametrize(
    "env_id",
    [
        "Pendulum-v1",
        "UmbrellaChain-bsuite",
        *slow("CartPole-v1", "Acrobot-v1", "Freeway-MinAtar", "FourRooms-misc"),
    ],
)
def test_with_x64_the_episodes_are_those_without(env_id: str) -> None:
    def play() -> Any:
        env, params = s5_envs.make(env_id)
        _, state = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(0), 2), params)

        def step(carry: Any, key: jax.Array) -> Any:
            keys = jax.random.split(key, 2)
            action = jnp.zeros((2, *env.action_space(params).shape), env.action_space(params).dtype)
            obs, after, *rest = jax.vmap(env.step, (0, 0, 0, None))(keys, carry, action, params)
            after = jax.tree.map(lambda x: x.astype(x.dtype), after)
            return after, (obs, *rest[:3])

        state = jax.tree.map(lambda x: x.astype(x.dtype), state)
        return jax.jit(lambda key: jax.lax.scan(step, state, jax.random.split(key, 30)))(jax.random.key(1))

    narrow = play()
    with jax.enable_x64(True):
        wide = play()
        batch = GymnaxVectorEnv(env_id, num_envs=2)
        batch.reset(seed=0)
        obs, rewards, *_ = batch.step(batch.action_space.sample())
    assert rewards.dtype == np.float32
    assert obs.dtype == batch.observation_space.dtype
    for mine, other in zip(jax.tree.leaves(wide), jax.tree.leaves(narrow), strict=True):
        assert mine.dtype.itemsize <= 4
        np.testing.assert_array_equal(mine, other)
