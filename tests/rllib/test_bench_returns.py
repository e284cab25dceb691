"""What the benchmark notes as returns, against a hand count, in episodes longer than an iteration."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from s5_adapters.bench.cell import write_weights
from s5_adapters.bench.record import Recorder
from s5_adapters.bench.spec import FRAMEWORKS, Cell, Spec
from s5_adapters.purejax.algorithms import ppo
from s5_adapters.sb3 import JaxVecEnv
from s5_envs.gymnasium import GymnaxVectorEnv
from tests.purejax.helpers import small_config

SPEC = Spec(
    small_config(
        env_id="PositionOnlyCartPoleEasy",
        env_kwargs={"max_episode_length": 13},  # some episodes fall, others end by time
        activation="tanh",
        total_steps=256,
        critic_memory="shared",
    ),
    threshold=0.5,
    row_length=5,
)


class Count(Recorder):
    """Sums rewards per environment, whatever the framework says, and compares at every update."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.sums = np.zeros(spec.ppo.num_envs)
        self.ended: list[float] = []
        self.counted: list[list[float]] = []

    def step(self, reward: Any, done: Any) -> None:
        self.sums += np.asarray(reward, float)
        self.ended += self.sums[np.asarray(done, bool)].tolist()
        self.sums[np.asarray(done, bool)] = 0.0

    def updated(self, steps: int, returns: Sequence[float]) -> None:
        super().updated(steps, returns)
        self.counted.append(self.ended)
        self.ended = []


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_returns_are_of_whole_episodes_and_of_those_that_ended_in_the_update(
    framework: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, count = Cell(SPEC, framework, "s5", 0), Count(SPEC)
    _count_rewards(framework, count, monkeypatch)
    write_weights(cell, tmp_path / "weights.safetensors")
    runner = importlib.import_module(f"s5_adapters.bench.frameworks.{framework.replace('-', '_')}")
    runner.run(cell, tmp_path / "weights.safetensors", count)
    assert len(count.rows) == 8
    assert sum(map(len, count.counted)) >= 8
    for row, ended in zip(count.rows, count.counted, strict=True):
        if ended:
            assert row["episode_return"] == pytest.approx(np.mean(ended), rel=1e-4, abs=1e-5)
        else:
            assert row["episode_return"] is None


def _count_rewards(framework: str, count: Count, monkeypatch: pytest.MonkeyPatch) -> None:
    if framework == "purejax":
        metrics = ppo.rollout_metrics

        def told(rewards: np.ndarray, dones: np.ndarray) -> None:
            for reward, done in zip(rewards, dones, strict=True):
                count.step(reward, done)

        def with_count(rollout: Any, episodes: Any, value_target: Any, *split: Any) -> Any:
            jax.debug.callback(told, episodes.reward, episodes.done, ordered=True)
            return metrics(rollout, episodes, value_target, *split)

        monkeypatch.setattr(ppo, "rollout_metrics", with_count)
        return
    kind, name = (GymnaxVectorEnv, "step") if framework == "rllib" else (JaxVecEnv, "step_wait")
    step = getattr(kind, name)

    def counted(env: Any, *arguments: Any) -> Any:
        result = step(env, *arguments)
        done = result[2] | result[3] if framework == "rllib" else result[2]
        if len(done) == count.sums.size:
            count.step(result[1], done)
        return result

    monkeypatch.setattr(kind, name, counted)
