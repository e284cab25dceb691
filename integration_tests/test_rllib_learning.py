"""PPO learns what cannot be learned without memory, on both API stacks, with and without env runners.

The settings are those of `examples/rllib_train.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import rllib_train
from _rllib import local_ray, quiet_ray, train_until
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

pytestmark = quiet_ray

ITERATIONS = {"RepeatPreviousEasy": 60, "PositionOnlyCartPoleEasy": 40}
"""About twice those that it takes."""


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    with local_ray():
        yield


def best_return(config: AlgorithmConfig, env: str) -> float:
    algo = config.debugging(seed=0).build_algo()
    try:
        return train_until(algo, 0.9, ITERATIONS[env])
    finally:
        algo.stop()


@pytest.mark.parametrize(
    ("env", "runners"),
    [
        ("PositionOnlyCartPoleEasy", 2),
        pytest.param("RepeatPreviousEasy", 0, marks=pytest.mark.slow),
        pytest.param("RepeatPreviousEasy", 2, marks=pytest.mark.slow),
        pytest.param("PositionOnlyCartPoleEasy", 0, marks=pytest.mark.slow),
    ],
)
def test_the_new_stack_learns(env: str, runners: int) -> None:
    assert best_return(rllib_train.new_stack(env, runners), env) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("env", ["RepeatPreviousEasy", "PositionOnlyCartPoleEasy"])
def test_the_old_stack_learns(env: str) -> None:
    assert best_return(rllib_train.old_stack(env, 0), env) >= 0.9
