"""MetaDMC end to end, where its extra is installed: one task trained on, one that was held out."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import s5_envs
from s5_adapters.cli import main
from s5_adapters.purejax import Trainer, build_problem, restore_policy
from s5_adapters.purejax.tasks import play_tasks
from s5_envs.in_context.meta_dmc import TASKS
from tests.purejax.helpers import small_config

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("mujoco_playground") is None,
        reason="mujoco_playground is missing: pip install 's5-adapters[control]'",
    ),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of what Playground imports
]
TRAINED, HELD_OUT = "CartpoleSwingup", "PendulumSwingup"
STEPS = 1_000
"""Of an episode, and hence of a task of one trial."""


def test_a_policy_is_trained_on_one_task_and_asked_on_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (TASKS[TRAINED], TASKS[HELD_OUT]) == ("training", "held_out")
    config = small_config(
        env_id="MetaDMC-v0",
        env_kwargs={"tasks": [TRAINED]},
        num_steps=16,
        total_steps=128,
        normalize_rewards=True,
    )
    run_dir = tmp_path / "run"
    Trainer(config, run_dir=run_dir).run()
    assert main(["evaluate", str(run_dir), "--per-trial", "--episodes", "2"]) == 0
    assert TRAINED in capsys.readouterr().out

    policy = restore_policy(run_dir)
    other = build_problem(replace(config, env_kwargs={"tasks": [HELD_OUT]}))
    assert other.net.config == policy.problem.net.config, "families are padded to the same sizes"
    (played,) = play_tasks(other, policy.params, policy.obs_stats, 2)
    assert played.family == HELD_OUT
    assert played.rewards.shape == (2, STEPS)
    assert ((played.rewards >= 0) & (played.rewards <= 1)).all()
    np.testing.assert_allclose(played.trial_returns[:, 0], played.rewards.sum(axis=1), rtol=1e-4)


def test_every_task_is_built_by_the_versions_that_the_extra_allows() -> None:
    for name in TASKS:
        env, params = s5_envs.make(f"playground/{name}")
        assert env.observation_space(params).shape[0] > 1, name
