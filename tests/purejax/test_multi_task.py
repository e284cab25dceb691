"""The trainer hands a MultiTask its batch whole, so that each family steps its own slots alone."""

import jax
import numpy as np

import s5_envs
from s5_adapters.purejax import make_train
from s5_adapters.purejax.problem import build_problem
from s5_envs import Family, MultiTask
from s5_envs.base import EnvParams
from tests.envs.echo import Echo
from tests.purejax.helpers import small_config


def two_families() -> MultiTask:
    limits = EnvParams(max_steps_in_episode=100)
    return MultiTask(tuple(Family(str(n), Echo(length=n), limits) for n in (2, 3)))


if "TwoFamilies" not in s5_envs.registered_ids():
    s5_envs.register("TwoFamilies", two_families)


def test_each_family_has_its_share_of_the_batch() -> None:
    problem = build_problem(small_config(env_id="TwoFamilies"))
    obs, state = problem.reset(jax.random.key(0), 5)
    assert obs.shape == (5, 5)
    assert [len(part.time) for part in state] == [3, 2]
    keys = jax.random.split(jax.random.key(1), 5)
    for t in range(1, 7):
        step = problem.step(keys, state, np.zeros((5, 3), np.float32))
        state = step.state
        np.testing.assert_array_equal(step.terminated, [t % 2 == 0] * 3 + [t % 3 == 0] * 2)


def test_it_trains() -> None:
    config = small_config(env_id="TwoFamilies", total_steps=64)
    result = jax.jit(make_train(config))(jax.random.key(0))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.metrics))
