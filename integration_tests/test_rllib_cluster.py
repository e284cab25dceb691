"""What clusters do to a run: runners die, learners multiply, checkpoints move, nodes are added."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from _rllib import (
    TINY,
    local_ray,
    logits_of,
    process_of,
    quiet_ray,
    remote_runners,
    runner_logits,
    tiny_config,
)
from ray import tune
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from s5_adapters.rllib import S5RLModule, register_envs

# They start processes for runners and learners, and take minutes together.
pytestmark = [*quiet_ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def _ray() -> Iterator[None]:
    with local_ray():
        yield


@pytest.mark.usefixtures("_ray")
def test_a_killed_runner_is_replaced_and_training_goes_on() -> None:
    config = tiny_config().env_runners(num_env_runners=2, num_envs_per_env_runner=2)
    algo = config.fault_tolerance(restart_failed_env_runners=True).build_algo()
    try:
        algo.train()
        before = remote_runners(algo, process_of)
        assert len(before) == 2
        for process in before:
            assert (process["backend"], process["platforms"]) == ("cpu", "cpu")
            assert process["preallocate"] == "false"
        os.kill(before[0]["pid"], signal.SIGKILL)
        for _ in range(20):
            result = algo.train()
            if algo.env_runner_group.num_healthy_remote_workers() == 2:
                break
        after = remote_runners(algo, process_of)
        assert len(after) == 2
        pids = {process["pid"] for process in after}
        assert before[0]["pid"] not in pids
        assert before[1]["pid"] in pids
        steps = result["env_runners"]["num_env_steps_sampled_lifetime"]
        assert algo.train()["env_runners"]["num_env_steps_sampled_lifetime"] > steps
        learned = logits_of(algo.get_module())
        assert all(np.array_equal(logits, learned) for logits in remote_runners(algo, runner_logits))
    finally:
        algo.stop()


@pytest.mark.usefixtures("_ray")
def test_two_learners_end_with_identical_weights() -> None:
    config = tiny_config().learners(num_learners=2, num_gpus_per_learner=0)
    algo = config.build_algo()
    try:
        initial = algo.get_module().get_state()
        for _ in range(2):
            algo.train()
        ranks = [
            result.get()
            for result in algo.learner_group.foreach_learner(
                lambda learner: learner.module[DEFAULT_MODULE_ID].unwrapped().get_state()
            )
        ]
        assert len(ranks) == 2
        assert set(ranks[0]) == set(initial)
        for name, leaf in ranks[0].items():
            assert np.array_equal(leaf, ranks[1][name]), name
        assert any(not np.array_equal(leaf, initial[name]) for name, leaf in ranks[0].items())
    finally:
        algo.stop()


@pytest.mark.usefixtures("_ray")
def test_a_checkpoint_of_no_runners_restores_with_two_and_acts_identically(tmp_path: Path) -> None:
    algo = tiny_config().build_algo()
    try:
        algo.train()
        algo.save_to_path(tmp_path)
        expected = logits_of(algo.get_module())
    finally:
        algo.stop()
    algo = tiny_config().env_runners(num_env_runners=2, num_envs_per_env_runner=2).build_algo()
    try:
        assert not np.array_equal(logits_of(algo.get_module()), expected)
        algo.restore_from_path(tmp_path)
        assert all(np.array_equal(logits, expected) for logits in remote_runners(algo, runner_logits))
        algo.train()
        assert not np.array_equal(logits_of(algo.get_module()), expected)
    finally:
        algo.stop()
    example = Path(__file__).parents[1] / "examples" / "rllib_act_outside_ray.py"
    ran = subprocess.run([sys.executable, example, tmp_path], capture_output=True, text=True, check=True)
    assert "return" in ran.stdout


@pytest.mark.usefixtures("_ray")
@pytest.mark.parametrize("algorithm", [APPOConfig, IMPALAConfig])
def test_asynchronous_algorithms_take_the_stateful_module(algorithm: type[IMPALAConfig]) -> None:
    register_envs()
    config = (
        algorithm()
        .environment("RepeatPreviousEasy")
        .env_runners(
            num_env_runners=1, num_envs_per_env_runner=4, gym_env_vectorize_mode="vector_entry_point"
        )
        .rl_module(
            rl_module_spec=RLModuleSpec(module_class=S5RLModule, model_config=TINY | {"max_seq_len": 16})
        )
        .training(train_batch_size_per_learner=256)
        .reporting(min_time_s_per_iteration=1)
        .debugging(seed=0)
    )
    algo = config.build_algo()
    try:
        (before,) = remote_runners(algo, runner_logits)
        losses = []
        for _ in range(30):  # sampling, learning and sending the weights round go on side by side
            learned = algo.train().get("learners", {}).get(DEFAULT_MODULE_ID, {})
            losses.append(learned.get("total_loss", np.nan))
            (after,) = remote_runners(algo, runner_logits)
            if not np.array_equal(after, before):
                break
        assert not np.array_equal(after, before)
        assert np.isfinite(losses).any()
    finally:
        algo.stop()


@pytest.mark.filterwarnings("ignore")  # Tune imports every algorithm of RLlib's, some of which warn.
@pytest.mark.usefixtures("_ray")
def test_tuning_over_two_learning_rates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_config().training(lr=tune.grid_search([1e-3, 1e-4]))
    results = tune.Tuner(
        "PPO",
        param_space=config,
        run_config=tune.RunConfig(storage_path=str(tmp_path), stop={"training_iteration": 2}, verbose=0),
    ).fit()
    assert not results.errors
    table = results.get_dataframe()[["config/lr", "training_iteration", "env_runners/episode_return_mean"]]
    print(table.to_string(index=False))
    assert sorted(table["config/lr"]) == [1e-4, 1e-3]
    assert list(table["training_iteration"]) == [2, 2]
    assert table["env_runners/episode_return_mean"].notna().all()
    assert "config/lr" in capsys.readouterr().out
