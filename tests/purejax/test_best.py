"""The best evaluated policy of a run, playing it without the run's folder, and Weights & Biases."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from s5_adapters import Policy, load_policy, save_policy
from s5_adapters.cli import main
from s5_adapters.purejax import RunFolderError, RunOptions, Trainer, build_problem
from s5_adapters.purejax.evaluate import Evaluation
from s5_adapters.purejax.restore import from_file
from tests.purejax.helpers import small_config


def test_the_best_evaluated_policy_is_kept_and_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    scores = iter([0.1, 0.5, 0.4, 0.3, 0.2])
    monkeypatch.setattr(
        Trainer,
        "evaluate",
        lambda self: Evaluation(np.full(2, next(scores), np.float32), np.ones(2, np.int32)),
    )
    options = RunOptions(evaluate_every=2, evaluation_episodes=2, keep_best=True)
    trainer = Trainer(small_config(), run_dir=tmp_path / "run", options=options)
    trainer.run()
    best = tmp_path / "run" / "best.safetensors"
    assert load_policy(best).training["updates"] == 4
    assert trainer.best_evaluation == pytest.approx(0.5)
    resumed = Trainer.resume(tmp_path / "run")
    assert resumed.best_evaluation == pytest.approx(0.5)

    assert main(["evaluate", str(best), "--episodes", "3", "--render", str(tmp_path / "out.gif")]) == 0
    told = capsys.readouterr().out
    assert f"RepeatPreviousEasy, s5, from {best}" in told
    assert (tmp_path / "out.gif").stat().st_size > 0


def test_what_is_best_has_to_be_evaluated() -> None:
    with pytest.raises(ValueError, match="keep_best: got True, expected evaluate_every with it"):
        RunOptions(keep_best=True)


def test_a_policy_file_plays_where_it_is_told(tmp_path: Path, capsys: Any) -> None:
    problem = build_problem(small_config())
    path = tmp_path / "policy.safetensors"
    save_policy(path, Policy(problem.net.config, problem.net.init(jax.random.key(0))))
    restored = from_file(path, "RepeatPreviousMedium")
    assert restored.problem.env.name == "RepeatPrevious"
    assert restored.config.training.env_id == "RepeatPreviousMedium"
    for arguments, message in (
        ([path], "the file names no environment, expected --env-id"),
        ([path, "--env-id", "CountRecallEasy"], "network has action Discrete(n=4), expected Discrete(n=27)"),
        ([path, "--checkpoint", "3"], "it is for a run's folder"),
        ([tmp_path, "--env-id", "RepeatPreviousEasy"], "it goes with a policy file"),
        ([tmp_path, "--env-kwargs", "k=3"], "env-kwargs: got {'k': 3} for"),
        ([path, "--env-id", "RepeatPreviousEasy", "--env-kwargs", "q=3"], "has no argument 'q'"),
        ([tmp_path / "none.safetensors"], "none.safetensors: No such file or directory"),
    ):
        assert main(["evaluate", *map(str, arguments)]) == 2
        told = capsys.readouterr().err
        assert message in told
        assert told.count("\n") == 1


def test_a_masked_policy_that_names_no_environment_is_told_of_the_masks(tmp_path: Path, capsys: Any) -> None:
    """As one of Stable-Baselines3's is: its file knows neither the environment nor its arguments."""
    problem = build_problem(small_config(env_id="MineSweeperEasy", env_kwargs={"action_mask": True}))
    path = tmp_path / "policy.safetensors"
    save_policy(path, Policy(problem.net.config, problem.net.init(jax.random.key(0))))
    command = ["evaluate", str(path), "--env-id", "MineSweeperEasy", "--episodes", "2"]
    assert main(command) == 2
    assert "it may need --env-kwargs action_mask=true" in capsys.readouterr().err
    assert main([*command, "--env-kwargs", "action_mask=true"]) == 0
    assert "MineSweeperEasy, s5, from" in capsys.readouterr().out


def test_arguments_come_on_top_of_the_file_s_own(tmp_path: Path) -> None:
    problem = build_problem(small_config())
    path = tmp_path / "policy.safetensors"
    policy = Policy(
        problem.net.config,
        problem.net.init(jax.random.key(0)),
        env_id="RepeatPreviousEasy",
        env_kwargs={"k": 2},
    )
    save_policy(path, policy)
    for env_id, given, expected in (
        (None, {}, {"k": 2}),
        (None, {"k": 3}, {"k": 3}),
        ("RepeatPreviousMedium", {}, {}),
    ):
        assert dict(from_file(path, env_id, given).config.training.env_kwargs) == expected


class FakeWandb:
    """What is used of wandb."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.given: dict[str, Any] = {}
        self.is_finished = False

    def Settings(self, **settings: Any) -> SimpleNamespace:
        return SimpleNamespace(**settings)

    def init(self, **given: Any) -> Any:
        self.given = given
        return self

    def define_metric(self, name: str, step_metric: str) -> None:
        assert step_metric == "step"

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def finish(self) -> None:
        self.is_finished = True


def test_weights_and_biases_gets_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)  # type: ignore[arg-type]
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    options = RunOptions(evaluate_every=5, evaluation_episodes=2, wandb=True)
    Trainer(small_config(), run_dir=tmp_path / "run", options=options).run()
    assert fake.is_finished
    assert fake.given["project"] == "s5-adapters"
    assert fake.given["name"] == "run"
    assert fake.given["resume"] == "allow"
    assert fake.given["config"]["env_id"] == "RepeatPreviousEasy"
    updates = [row["update"] for row in fake.rows if "train/entropy" in row]
    assert updates == list(range(1, 11))
    assert sum("evaluation/evaluation_return" in row for row in fake.rows) == 2
    assert os.fspath(tmp_path / "run") == fake.given["dir"]


@pytest.mark.parametrize("call", ["init", "log", "finish"])
def test_what_weights_and_biases_refuses_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    class Failing(FakeWandb):
        def __getattribute__(self, name: str) -> Any:
            if name == call:
                raise RuntimeError("api_key not configured (no-tty)\ncall wandb.login()")
            return super().__getattribute__(name)

    monkeypatch.setitem(sys.modules, "wandb", Failing())  # type: ignore[arg-type]
    trainer = Trainer(small_config(), run_dir=tmp_path / "run", options=RunOptions(wandb=True))
    told = r"^stopped: run folder \S*: wandb: api_key not configured \(no-tty\); [^\n]*--resume \S*$"
    with pytest.raises(RunFolderError, match=told):
        trainer.run()
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb())  # type: ignore[arg-type]
    assert Trainer.resume(tmp_path / "run").run().state.update == 10


def test_without_the_package_it_is_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s5_adapters.purejax.wandb_log.find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(ValueError, match=r"wandb: it takes pip install 's5-adapters\[wandb\]'"):
        Trainer(small_config(), run_dir=tmp_path / "run", options=RunOptions(wandb=True))
    assert not (tmp_path / "run").exists()
