"""Spaces of both packages, read by one function."""

from typing import Any

import gymnasium
import numpy as np
import pytest

import s5_envs
from s5_adapters.core import ActionSpec, Box, Discrete, MultiDiscrete
from s5_adapters.core.network.spaces import action_spec, observation_shape

gymnax = s5_envs.spaces


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (gymnasium.spaces.Discrete(3), Discrete(3)),
        (gymnax.Discrete(3), Discrete(3)),
        (gymnasium.spaces.MultiDiscrete([2, 3]), MultiDiscrete((2, 3))),
        (gymnax.MultiDiscrete((2, 3)), MultiDiscrete((2, 3))),
        (gymnasium.spaces.Box(-1.0, np.inf, (2, 1)), Box((-1.0, -1.0), (np.inf, np.inf))),
        (gymnax.Box(-1.0, np.inf, (2, 1)), Box((-1.0, -1.0), (np.inf, np.inf))),
        (gymnasium.spaces.MultiBinary(3), MultiDiscrete((2, 2, 2))),
        (gymnax.Box(np.array([-0.1, 0.0]), 1.0, (2,)), Box((float(np.float32(-0.1)), 0.0), (1.0, 1.0))),
        (gymnasium.spaces.Box(-0.1, 1.0, (1,)), Box((float(np.float32(-0.1)),), (1.0,))),
        (gymnasium.spaces.Box(-0.1, 1.0, (1,), np.float64), Box((-0.1,), (1.0,))),
        (gymnasium.spaces.Box(0, 7, (1,), np.int64), Box((0.0,), (7.0,))),
    ],
)
def test_actions(space: Any, expected: ActionSpec) -> None:
    assert action_spec(space) == expected


@pytest.mark.parametrize(
    "space",
    [
        None,
        gymnasium.spaces.Discrete(3, start=1),
        gymnasium.spaces.MultiBinary([2, 3]),
        gymnasium.spaces.MultiDiscrete([[2, 3]]),
        gymnasium.spaces.MultiDiscrete([2, 3], start=[0, 1]),
        gymnasium.spaces.Dict({"a": gymnasium.spaces.Discrete(2)}),
        gymnax.Tuple([gymnax.Discrete(2)]),
    ],
)
def test_other_actions_are_refused_in_one_line(space: Any) -> None:
    with pytest.raises(ValueError, match=r"^action space: got .*, expected Discrete[^\n]* or Box$"):
        action_spec(space)


def test_a_box_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^action space: Box: got low .*, expected .* low < high$"):
        action_spec(gymnasium.spaces.Box(1.0, 1.0, (1,)))


@pytest.mark.parametrize("package", [gymnasium.spaces, gymnax])
@pytest.mark.parametrize(
    ("shape", "expected"), [((3,), (3,)), ((2, 3), (6,)), ((), (1,)), ((36, 40, 3), (36, 40, 3))]
)
def test_observations(package: Any, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert observation_shape(package.Box(0.0, 1.0, shape)) == expected


def test_other_observations_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"^observation space: got Discrete\(3\), expected a Box$"):
        observation_shape(gymnasium.spaces.Discrete(3))
    with pytest.raises(ValueError, match=r"^observation space: got images of \(35, 40, 3\), expected at le"):
        observation_shape(gymnasium.spaces.Box(0.0, 1.0, (35, 40, 3)))
