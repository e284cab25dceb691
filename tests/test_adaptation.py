"""``evaluate --per-trial``: what is found of each trial and step, of which families, and how it ends."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import s5_envs
from s5_adapters.cli import main
from s5_adapters.purejax import PPOConfig, RunConfig, build_problem
from s5_adapters.purejax.checkpoint import Checkpoints
from s5_adapters.purejax.run_folder import CHECKPOINTS_NAME, write_config
from s5_adapters.purejax.tasks import play_tasks
from s5_adapters.purejax.training import Programs
from s5_envs import Family, MultiTask, Trials
from s5_envs.base import EnvParams
from tests.envs.echo import Echo
from tests.purejax.helpers import small_config

LIMIT = EnvParams(max_steps_in_episode=100)


def echoes(split: Literal["training", "held_out"] = "training", num_trials: int = 2) -> MultiTask:
    """Families whose trials pay 1 + 2 and 1 + 2 + 3; held out is one of 1 + 2 + 3 + 4."""
    lengths = {"training": (2, 3), "held_out": (4,)}[split]
    return MultiTask(tuple(Family(f"of {n}", Trials(Echo(length=n), num_trials), LIMIT) for n in lengths))


@dataclass(frozen=True)
class ShowsKey(Echo):
    """Every step ends a task, shows the number that the next one was drawn by, and pays its own."""

    def get_obs(self, state: Any, params: Any = None, key: Any = None) -> jax.Array:
        return jnp.broadcast_to(state.start, 5)

    def transition(self, state: Any, action: Any, draw: None, params: Any) -> Any:
        return state.replace(time=state.time + 1), state.start, jnp.bool_(True)


for name, factory in {
    "Echoes": echoes,
    "ShowsKey": lambda: Trials(ShowsKey(), 1),
    "OneEcho": lambda: Trials(Echo(), 2),
}.items():
    if name not in s5_envs.registered_ids():
        s5_envs.register(name, factory)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run of which nothing is learned yet, the same with another seed, and with another learning rate."""
    folder = tmp_path_factory.mktemp("runs")
    config = tiny("Echoes")
    state = config.init_state(build_problem(config), jax.random.key(0), jnp.float32(0))
    configured(folder / "first", "Echoes")
    Checkpoints(folder / "first" / CHECKPOINTS_NAME).save(0, state)
    changed(folder / "first", folder / "second", seed=1)
    changed(folder / "first", folder / "third", learning_rate=0.5)
    return [folder / name for name in ("first", "second", "third")]


def tiny(env_id: str, **fields: Any) -> PPOConfig:
    sizes = {"d_model": 8, "n_layers": 1}
    return small_config(env_id=env_id, memory="feedforward", memory_config=sizes, **fields)


def configured(run_dir: Path, env_id: str) -> Path:
    """The folder of a run that has begun and kept nothing."""
    write_config(run_dir, RunConfig(tiny(env_id)))
    (run_dir / "log.jsonl").write_text("")
    return run_dir


def changed(run: Path, copy: Path, **fields: Any) -> Path:
    shutil.copytree(run, copy)
    config = json.loads((run / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | fields))
    return copy


def test_returns_by_trial_and_rewards_by_step(runs: list[Path], tmp_path: Path, capsys: Any) -> None:
    files = ["--json", str(tmp_path / "out" / "a.json"), "--plot", str(tmp_path / "a.svg")]
    options = ["--per-trial", "--held-out", "--trials", "3", "--episodes", "2", *files]
    assert main(["evaluate", *map(str, runs), *options]) == 0
    out = capsys.readouterr().out
    assert "Return by trial" in out
    assert "<svg" in (tmp_path / "a.svg").read_text()
    found = json.loads((tmp_path / "out" / "a.json").read_text())
    assert found["env_id"] == "Echoes"
    lines = {(c["split"], c["family"], c["label"]): c for c in found["curves"]}
    families = [("training", "of 2", 2), ("training", "of 3", 3), ("held_out", "of 4", 4)]
    labels = ["feedforward, learning_rate=0.001", "feedforward, learning_rate=0.5"]
    assert list(lines) == [(split, name, label) for split, name, _ in families for label in labels]
    assert [len(line["runs"]) for line in found["curves"]] == [2, 1] * 3
    for split, name, length in families:
        for label in labels:
            line = lines[split, name, label]
            assert line["by_trial"]["mean"] == [length * (length + 1) / 2] * 3
            assert line["by_trial"]["standard_error"] == [0.0] * 3
            assert line["by_step"]["step"] == list(range(1, 3 * length + 1))
            assert line["by_step"]["mean"] == [*range(1, length + 1)] * 3
            assert line["by_step"]["under_way"] == [1.0] * 3 * length
            assert f"{length * (length + 1) // 2} ± 0" in out


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("RepeatPreviousEasy", [], "RepeatPrevious: the environment has no trials, expected one with"),
        ("OneEcho", ["--trials", "4"], "trials: their number cannot be set: OneEcho has no argument"),
        ("OneEcho", ["--held-out"], "held-out: no families are held out: OneEcho has no argument 'split'"),
        ("Echoes", ["--trials", "0"], "trials: got 0"),
        ("Echoes", ["--plot", "a.doc"], "a.doc: expected a file name ending in one of"),
        ("Echoes", ["--render", "a.gif"], "render: it is not for evaluate --per-trial"),
    ],
)
def test_what_cannot_be_evaluated_gets_one_line(
    tmp_path: Path, capsys: Any, env_id: str, options: list[str], message: str
) -> None:
    run = configured(tmp_path / "run", env_id)
    assert main(["evaluate", str(run), "--per-trial", *options]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert (out, err.count("\n")) == ("", 1)


def test_runs_of_different_environments_and_stray_options_get_one_line(
    tmp_path: Path, runs: list[Path], capsys: Any
) -> None:
    other = configured(tmp_path / "other", "OneEcho")
    assert main(["evaluate", str(runs[0]), str(other), "--per-trial"]) == 2
    assert "on Echoes and" in capsys.readouterr().err
    assert main(["evaluate", *map(str, runs)]) == 2
    assert "got 3 runs, expected one (with --per-trial several)" in capsys.readouterr().err
    assert main(["evaluate", str(runs[0]), "--held-out"]) == 2
    assert "held-out: it is for evaluate --per-trial" in capsys.readouterr().err
    assert main(["evaluate", "--per-trial"]) == 2
    assert "expected the folders of one or more runs" in capsys.readouterr().err


def test_evaluation_tasks_share_no_key_with_training_tasks() -> None:
    """Not even where both have the same seed."""
    config = tiny("ShowsKey", num_steps=1, num_epochs=1, num_minibatches=1, total_steps=200)
    programs = Programs.of(config)
    state = programs.init_state(jax.random.key(0), jnp.float32(1e-3))
    trained = [np.asarray(state.carry.obs)]
    for _ in range(50):
        state, _ = programs.run_chunk(state, jnp.int32(1), buffer_size=1)
        trained.append(np.asarray(state.carry.obs))
    drawn = {float(x) for x in np.concatenate(trained)[:, 0]}
    played = [
        {float(x) for x in play_tasks(programs.problem, state.params, None, 200, seed=seed)[0].rewards[:, 0]}
        for seed in (0, 0, 1)
    ]
    assert (len(drawn), len(played[0]), len(played[2])) == (204, 200, 200)
    assert played[0] == played[1]
    assert not drawn & (played[0] | played[2])
    assert not played[0] & played[2]


def test_without_resets_the_second_tasks_are_counted() -> None:
    """The first begins with an empty memory, as nothing in such a training does but its beginning."""
    with_resets, without = (
        play_tasks(problem, problem.net.init(jax.random.key(0)), None, 50)[0].rewards
        for problem in (build_problem(tiny("ShowsKey", resets=resets)) for resets in (True, False))
    )
    assert with_resets.shape == without.shape == (50, 1)
    assert not set(with_resets[:, 0]) & set(without[:, 0])
    problem = build_problem(tiny("Echoes", resets=False))
    for length, family in zip(
        (2, 3), play_tasks(problem, problem.net.init(jax.random.key(0)), None, 2), strict=True
    ):
        np.testing.assert_array_equal(family.trial_returns, np.full((2, 2), length * (length + 1) / 2))
        np.testing.assert_array_equal(family.rewards, np.tile(np.arange(1, length + 1), (2, 2)))
