"""The words a policy understands: S5's own, MlpLstmPolicy's, and what it says to the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.torch_layers import FlattenExtractor, NatureCNN

from s5_adapters.core import Memory, make_memory, register_memory
from s5_adapters.sb3 import CnnS5Policy, MultiInputS5Policy, S5Policy, S5RecurrentPPO
from s5_adapters.sb3.arguments import DEFAULT_CRITIC_MEMORY, NetworkArguments, critic_topology
from s5_adapters.sb3.policies import MAX_STOCK_STATE

VECTOR, IMAGE = spaces.Box(-1, 1, (3,)), spaces.Box(0, 255, (36, 36, 3), np.uint8)
DICT = spaces.Dict({"a": VECTOR})


def memory(name: str = "s5", config: dict[str, Any] | None = None, **said: Any) -> Memory:
    return NetworkArguments(memory=name, **said, memory_config=config or {}).make_memory()


@pytest.mark.parametrize(
    ("said", "config", "expected"),
    [
        ({"lstm_hidden_size": 32, "n_lstm_layers": 3}, {}, (32, 32, 3)),
        ({"d_model": 32, "n_layers": 1}, {"d_state": 16}, (32, 16, 1)),
        ({"d_model": 32, "lstm_hidden_size": 32}, {}, (32, 32, 2)),
        ({"lstm_hidden_size": 5}, {}, (5, 6, 2)),
        ({"d_model": 10}, {"n_blocks": 4}, (10, 16, 2)),
    ],
)
def test_sizes_in_either_vocabulary(said: dict, config: dict, expected: tuple[int, int, int]) -> None:
    made = memory(config=config, **said)
    assert (made.d_model, made.d_state, made.n_layers) == expected


def test_other_memories_take_their_own_arguments() -> None:
    assert memory("gru", lstm_hidden_size=16, n_lstm_layers=2).state_shape is not None
    assert memory("s5", {"dt_min": 0.01}).dt_min == 0.01
    assert memory("lru", lstm_hidden_size=15).d_state == 16
    assert memory("mamba", lstm_hidden_size=32) == make_memory("mamba", d_model=32, n_layers=2)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (
            lambda: memory(lstm_kwargs={"dropout": 0.5}),
            TypeError,
            "lstm_kwargs is for.*leave it out",
        ),
        (lambda: memory(d_model=8, lstm_hidden_size=16), ValueError, "two words for one size"),
        (lambda: memory(n_layers=1, n_lstm_layers=2), ValueError, "n_layers=1 and n_lstm_layers=2"),
        (lambda: memory(config={"dt_mim": 0.1}), ValueError, "'dt_mim'.*did you mean dt_min"),
        (lambda: memory("gru", {"discretization": "zoh"}), ValueError, "'discretization' for memory 'gru'"),
        (lambda: memory("s6"), ValueError, "memory: got 's6'.*s5"),
        (lambda: memory(d_model=0), ValueError, "d_model"),
    ],
)
def test_sizes_that_make_no_sense_are_told(make, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        make()


@pytest.mark.parametrize(
    ("critic_memory", "shared", "enabled", "expected"),
    [
        (None, None, None, DEFAULT_CRITIC_MEMORY),
        (None, None, True, "separate"),
        (None, False, None, "separate"),
        (None, False, True, "separate"),
        (None, None, False, "none"),
        (None, False, False, "none"),
        (None, True, False, "shared_detached"),
        ("shared", None, None, "shared"),
        ("none", None, None, "none"),
    ],
)
def test_topologies(critic_memory, shared, enabled, expected: str) -> None:
    assert critic_topology(critic_memory, shared, enabled, share_features_extractor=True) == expected


def test_separate_features_make_separate_memories_unless_told() -> None:
    assert critic_topology(None, None, None, share_features_extractor=False) == "separate"
    assert critic_topology(None, None, False, share_features_extractor=False) == "none"


@pytest.mark.parametrize("enabled", [None, True])
def test_shared_and_separate_at_once_is_sb3s_assertion(enabled: bool | None) -> None:
    with pytest.raises(AssertionError, match="enable_critic_lstm=False"):
        critic_topology(None, True, enabled, share_features_extractor=True)


@pytest.mark.parametrize(
    "said", [(None, True, False), ("shared", None, None), ("shared_detached", None, None)]
)
def test_a_shared_memory_with_two_extractors_is_sb3s_assertion(said: tuple) -> None:
    with pytest.raises(AssertionError, match="share_features_extractor=True"):
        critic_topology(*said, share_features_extractor=False)


def test_topologies_in_two_vocabularies_or_none() -> None:
    with pytest.raises(ValueError, match="not both"):
        critic_topology("separate", None, True, share_features_extractor=True)
    with pytest.raises(ValueError, match="critic_memory: got 'joint', expected shared"):
        critic_topology("joint", None, None, share_features_extractor=True)


@pytest.mark.parametrize(
    ("policy", "space", "kwargs", "error", "says"),
    [
        (S5Policy, DICT, {}, ValueError, "S5Policy: the observation space is a Dict: use MultiInputS5Policy"),
        (CnnS5Policy, DICT, {}, ValueError, "use MultiInputS5Policy"),
        (MultiInputS5Policy, VECTOR, {}, ValueError, "use S5Policy"),
        (CnnS5Policy, VECTOR, {}, AssertionError, "is no image.*use S5Policy"),
        (S5Policy, VECTOR, {"encoder": (8,), "activation_fn": th.nn.SiLU}, ValueError, "Tanh, ReLU"),
        (S5Policy, VECTOR, {"lstm_kwargs": {"dropout": 0.1}}, TypeError, "lstm_kwargs"),
    ],
)
def test_policies_refuse_what_they_cannot_read(policy, space, kwargs, error, says: str) -> None:
    with pytest.raises(error, match=says):
        policy(space, spaces.Discrete(2), lambda _: 1e-3, **kwargs)


def test_importing_registers_the_policies_and_leaves_the_others() -> None:
    names = {"S5Policy", "CnnS5Policy", "MultiInputS5Policy", "MlpLstmPolicy", "CnnLstmPolicy"}
    assert names <= set(RecurrentPPO.policy_aliases)
    assert names <= set(S5RecurrentPPO.policy_aliases)
    assert RecurrentPPO.policy_aliases["S5Policy"] is S5Policy


def test_the_cnn_policys_default_is_the_cores_cnn_even_when_sb3s_is_named() -> None:
    space = spaces.Box(0, 255, (3, 36, 36), np.uint8)

    def policy_with(**kwargs: Any) -> CnnS5Policy:
        return CnnS5Policy(space, spaces.Discrete(2), lambda _: 1e-3, d_model=4, n_layers=1, **kwargs)

    for extra in ({}, {"features_extractor_class": NatureCNN}):
        policy = policy_with(features_extractor_kwargs={"features_dim": 9}, **extra)
        assert not list(policy.features_extractor.parameters())
        assert policy.trunk.tree()["encoder"]["NatureCNN_0"]["Dense_0"]["kernel"].shape[1] == 9
    other = policy_with(features_extractor_class=FlattenExtractor)
    assert not jax.tree.leaves(other.trunk.tree()["encoder"])


def test_a_state_too_large_for_the_stock_buffer_is_refused_there_alone() -> None:
    @register_memory("hoarder")
    @dataclass(frozen=True, kw_only=True)
    class Hoarder(Memory):
        """Keeps its inputs' sum in one place of a huge state."""

        @property
        def state_shape(self) -> tuple[int]:
            return (MAX_STOCK_STATE + 1,)

        def init(self, key, width):
            return {"scale": jnp.ones(self.d_model)}

        def apply(self, params, state, x, episode_starts):
            return state, jnp.zeros((*x.shape[:2], self.d_model)) + params["scale"]

        def step(self, prepared, state, x, episode_starts):
            return state, jnp.zeros((len(x), self.d_model)) + prepared["scale"]

    kwargs = {
        "n_steps": 8,
        "batch_size": 8,
        "n_epochs": 1,
        "policy_kwargs": {"memory": "hoarder", "d_model": 4},
    }
    with pytest.raises(ValueError, match=f"'hoarder' has a state of {MAX_STOCK_STATE + 1}.*S5RecurrentPPO"):
        RecurrentPPO("S5Policy", "CartPole-v1", **kwargs)
    S5RecurrentPPO("S5Policy", "CartPole-v1", **kwargs).learn(8)
