"""Flags, states and observations of every shape and type that the LSTM policy's `predict` takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates

from s5_adapters.sb3 import S5Policy

OBS = np.random.default_rng(0).uniform(-1, 1, (3, 3)).astype(np.float32)
FLAGS = np.array([True, False, True])


@pytest.fixture(scope="module")
def made() -> S5Policy:
    th.manual_seed(0)
    space = spaces.Box(-1, 1, (3,))
    return S5Policy(space, spaces.Discrete(2), lambda _: 1e-3, d_model=8, n_layers=1, net_arch=[])


@pytest.fixture(scope="module")
def lstm() -> RecurrentActorCriticPolicy:
    space = spaces.Box(-1, 1, (3,))
    return RecurrentActorCriticPolicy(space, spaces.Discrete(2), lambda _: 1e-3, lstm_hidden_size=8)


def predicted(policy: Any, obs: Any, state: Any, flags: Any) -> list[np.ndarray]:
    action, state = policy.predict(obs, state=state, episode_start=flags, deterministic=True)
    return [action, *state]


ONE: dict[str, Callable[[bool], Any]] = {
    "bool": bool,
    "numpy bool": np.bool_,
    "int": int,
    "float": float,
    "list": lambda flag: [flag],
    "tuple": lambda flag: (flag,),
    "0-d array": np.array,
    "column": lambda flag: np.array([[flag]]),
    "float64": lambda flag: np.array([flag], np.float64),
    "int8": lambda flag: np.array([flag], np.int8),
    "nested list": lambda flag: [[flag]],
}


@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("flag", [True, False])
def test_one_flag(name: str, flag: bool, made: S5Policy, lstm: RecurrentActorCriticPolicy) -> None:
    for policy in (made, lstm):
        _, state = policy.predict(OBS[0], deterministic=True)
        expected = predicted(policy, OBS[1], state, np.array([flag]))
        for got, want in zip(predicted(policy, OBS[1], state, ONE[name](flag)), expected, strict=True):
            np.testing.assert_array_equal(got, want)


def test_a_tensor_of_flags(made: S5Policy) -> None:
    _, state = made.predict(OBS)
    for flags in (th.tensor(FLAGS), th.tensor(FLAGS).float()[:, None]):
        got = predicted(made, OBS, state, flags)
        assert all(map(np.array_equal, got, predicted(made, OBS, state, FLAGS)))


@pytest.mark.parametrize(
    "flags",
    [[1, 0, 1], FLAGS[:, None], FLAGS[None], FLAGS.astype(np.float64), FLAGS.astype(int), FLAGS.tolist()],
    ids=["list", "column", "row", "float64", "int", "list of bools"],
)
def test_many_flags(flags: Any, made: S5Policy, lstm: RecurrentActorCriticPolicy) -> None:
    for policy in (made, lstm):
        _, state = policy.predict(OBS, deterministic=True)
        expected = predicted(policy, OBS, state, FLAGS)
        assert all(map(np.array_equal, predicted(policy, OBS, state, flags), expected))


@pytest.mark.parametrize(
    "convert",
    [list, np.stack, lambda s: tuple(x.astype(np.float64) for x in s), lambda s: [x.tolist() for x in s]],
    ids=["list", "array", "float64", "nested lists"],
)
def test_states(convert: Callable[[Any], Any], made: S5Policy, lstm: RecurrentActorCriticPolicy) -> None:
    for policy in (made, lstm):
        _, state = policy.predict(OBS, deterministic=True)
        expected = predicted(policy, OBS, state, FLAGS)
        assert all(map(np.array_equal, predicted(policy, OBS, convert(state), FLAGS), expected))


def test_tensors_as_a_state(made: S5Policy) -> None:
    _, state = made.predict(OBS)
    got = predicted(made, OBS, tuple(map(th.tensor, state)), FLAGS)
    assert all(map(np.array_equal, got, predicted(made, OBS, state, FLAGS)))


@pytest.mark.parametrize(
    "obs", [OBS.astype(np.float64), OBS.tolist(), list(OBS), [[0, 1, 0], [1, 0, 0], [0, 0, 1]]]
)
def test_observations(obs: Any, made: S5Policy, lstm: RecurrentActorCriticPolicy) -> None:
    for policy in (made, lstm):
        expected = predicted(policy, np.array(obs, np.float32), None, None)
        assert all(map(np.array_equal, predicted(policy, obs, None, None), expected))


def test_flags_of_any_shape_in_every_method(made: S5Policy) -> None:
    layers, _, width = made.lstm_hidden_state_shape
    pair = th.ones(layers, 3, width), th.ones(layers, 3, width)
    states, obs = RNNStates(pair, pair), th.tensor(OBS)
    plain, column = th.tensor(FLAGS).float(), th.tensor(FLAGS)[:, None]
    with th.no_grad():
        for call in (
            lambda s: made.forward(obs, states, s, deterministic=True)[1],
            lambda s: made.predict_values(obs, pair, s),
            lambda s: made.evaluate_actions(obs, th.zeros(3), states, s)[0],
            lambda s: made.get_distribution(obs, pair, s)[1][0],
        ):
            assert th.equal(call(plain), call(column))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"episode_start": [True, False]}, r"episode_starts has shape \(2,\), expected .* the 3 obs"),
        ({"episode_start": True}, r"episode_starts has shape \(\), expected .* \(3,\)"),
        ({"episode_start": np.ones((3, 2))}, r"episode_starts has shape \(3, 2\)"),
        ({"episode_start": "yes"}, "episode_start is 'yes', expected an array of numbers"),
        ({"episode_start": [None] * 3}, "episode_start is or holds NaN"),
        ({"state": np.zeros((1, 3, 4))}, "state is ndarray of 1 parts, expected the pair"),
        ({"state": 3}, "state is int of no parts"),
        ({"state": (None, None)}, r"state\[0\] is or holds None"),
        (
            {"state": (np.zeros((1, 2, 4)),) * 2},
            r"recurrent state has shape \(1, 2, 4\), expected \(1, n, 4\)",
        ),
        ({"state": (np.zeros((3, 4)),) * 2}, r"recurrent state has shape \(3, 4\), expected \(1, n, 4\)"),
        ({"state": (np.zeros(()),) * 2}, r"recurrent state has shape \(\)"),
    ],
)
def test_what_does_not_fit_is_one_line(arguments: dict[str, Any], told: str, made: S5Policy) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        made.predict(OBS, **arguments)
    assert "\n" not in str(caught.value)
