"""Names of format 1: what is stored under them is found, and pickled policies come back in format 2."""

from __future__ import annotations

import copy
import pickle

import jax
import numpy as np
import pytest

from s5_adapters.core import ActorCritic, ActorCriticConfig, Box
from s5_adapters.core.files.format1 import from_format_1, name_in_format_1
from s5_adapters.core.files.weights import Policy

CONFIG = ActorCriticConfig(
    obs_shape=(3,),
    action=Box((-1.0,), (1.0,)),
    memory="gru",
    memory_config={"d_model": 4},
    encoder=(6,),
    actor_torso=(5, 5),
    critic_torso=(),
    critic_memory="separate",
)


@pytest.mark.parametrize(
    ("now", "then"),
    [
        ("params/trunk/encoder/MLP_0/Dense_0/bias", "params/encoder/MLP_0/Dense_0/bias"),
        ("params/trunk/memory/B", "params/memory/B"),
        ("trunk/critic_memory/B", "critic_memory/B"),
        ("trunk/actor/Dense_1/kernel", "actor/MLP_0/Dense_1/kernel"),
        ("opt_state/1/mu/trunk/critic/Dense_0/bias", "opt_state/1/mu/critic/MLP_0/Dense_0/bias"),
        ("heads/actor/kernel", "actor/Dense_0/kernel"),
        ("opt_state/1/nu/heads/critic/bias", "opt_state/1/nu/critic/Dense_0/bias"),
        ("heads/log_std", "log_std"),
        ("carry/env_state/time", "carry/env_state/time"),
        ("carry/env_state/heads", "carry/env_state/heads"),
    ],
)
def test_a_name_is_that_of_format_1(now: str, then: str) -> None:
    assert name_in_format_1(now) == then
    assert name_in_format_1(now.replace("/", "."), ".") == then.replace("/", ".")


def test_only_what_is_missing_is_looked_for_under_its_former_name() -> None:
    found = {"memory/B": 1, "heads/log_std": 2, "log_std": 3, "memory/gone": 4}
    names = ["trunk/memory/B", "heads/log_std"]
    expected = {"trunk/memory/B": 1, "heads/log_std": 2, "log_std": 3, "memory/gone": 4}
    assert from_format_1(found, names) == expected


def test_a_pickled_policy_of_format_1_comes_back_in_format_2() -> None:
    net = ActorCritic(CONFIG)
    policy = Policy(CONFIG, net.init(jax.random.key(0)), env_id="Pendulum-v1")
    trunk, heads = policy.params["trunk"], policy.params["heads"]
    former = copy.copy(policy)
    parts = {name: trunk[name] for name in ("encoder", "memory", "critic_memory")}
    actor = {"MLP_0": trunk["actor"], "Dense_0": heads["actor"]}
    params = {**parts, "actor": actor, "critic": {"Dense_0": heads["critic"]}, "log_std": heads["log_std"]}
    object.__setattr__(former, "params", params)
    again = pickle.loads(pickle.dumps(former))
    assert jax.tree.structure(again.params) == jax.tree.structure(policy.params)
    jax.tree.map(np.testing.assert_array_equal, again.params, policy.params)
    assert (again.config, again.env_id) == (policy.config, policy.env_id)


def test_a_policy_that_acted_is_pickled_without_what_it_prepared() -> None:
    policy = Policy(CONFIG, ActorCritic(CONFIG).init(jax.random.key(0)))
    obs, starts = np.ones((2, 3), np.float32), np.ones(2, bool)
    action, _ = policy.act(obs, policy.initial_state(2), starts)
    again = pickle.loads(pickle.dumps(policy))
    assert vars(again).keys() == {"config", "params", "obs_statistics", "env_id", "env_kwargs", "training"}
    np.testing.assert_array_equal(again.act(obs, again.initial_state(2), starts)[0], action)
