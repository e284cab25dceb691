"""Training on environments from elsewhere: an older one trains as the one it would be today."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import s5_envs
from s5_adapters.purejax import PPOConfig, build_problem, make_train
from tests.envs.elsewhere import Plain
from tests.purejax.environments import HiddenBit
from tests.purejax.helpers import assert_same_bits, small_config


@dataclass(frozen=True)
class OldHiddenBit(HiddenBit):
    """``HiddenBit`` with the five values of gymnax 0.x."""

    def step(self, key: jax.Array, state: Any, action: Any, params: Any = None) -> Any:
        obs, state, reward, terminated, truncated, info = super().step(key, state, action, params)
        return obs, state, reward, terminated | truncated, info


@pytest.fixture(scope="module", autouse=True)
def _registered():
    s5_envs.register("OldHiddenBit", OldHiddenBit)


@pytest.mark.slow
def test_an_older_environment_trains_as_it_would_today():
    kwargs = {"length": 5, "terminates": True}
    with pytest.warns(UserWarning, match="OldHiddenBit: step gives gymnax 0.x's five values"):
        old = make_train(small_config(env_id="OldHiddenBit", env_kwargs=kwargs, total_steps=64))
    new = make_train(small_config(env_id="HiddenBit", env_kwargs=kwargs, total_steps=64))
    results = [jax.jit(train)(jax.random.key(0)) for train in (old, new)]
    assert_same_bits(results[0].metrics, results[1].metrics)
    assert_same_bits(results[0].state.params, results[1].state.params)


def test_nested_observations_are_flat_for_the_network():
    space = s5_envs.spaces.Dict(
        {
            "b": s5_envs.spaces.Discrete(4),
            "a": s5_envs.spaces.Tuple(
                [s5_envs.spaces.Box(0.0, 9.0, (2, 2)), s5_envs.spaces.MultiDiscrete((2, 3))]
            ),
        }
    )
    s5_envs.register("Nested", Plain, space=space)
    config = small_config(env_id="Nested", normalize_observations=True, normalize_rewards=True)
    assert build_problem(config).obs_shape == (4 + 2 + 3 + 4,)
    result = jax.eval_shape(make_train(config), jax.random.key(0))
    assert result.state.carry.obs.shape == (4, 13)
    assert result.state.carry.obs.dtype == jnp.float32


@pytest.mark.parametrize(
    ("env_id", "space", "action", "message"),
    [
        ("TooSmall", s5_envs.spaces.Box(0, 255, (10, 10, 3), jnp.uint8), None, "at least 36 pixels a side"),
        ("NoRoom", None, s5_envs.spaces.Box(1.0, 1.0, (1,)), "expected equally many bounds with low < high"),
    ],
)
def test_what_the_network_cannot_take_is_refused_by_name(env_id, space, action, message):
    s5_envs.register(env_id, Plain, space=space, action=action)
    with pytest.raises(ValueError, match=rf"^{env_id}: [^\n]*{message}"):
        build_problem(PPOConfig(env_id=env_id))
