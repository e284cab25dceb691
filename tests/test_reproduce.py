"""``s5-adapters reproduce``: cells, filters, resumption, failures, the tables' arithmetic."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from s5_adapters.adaptation.curves import Adaptation, Curve
from s5_adapters.adaptation.figure import draw
from s5_adapters.bench import spec as bench
from s5_adapters.cli import main
from s5_adapters.core import make_memory
from s5_adapters.core.memories.matching import count_params
from s5_adapters.purejax.algorithms.a2c import A2CConfig
from s5_adapters.purejax.logging import read_log, write_atomically
from s5_adapters.reproduce import command
from s5_adapters.reproduce.experiments import experiment_names, find_experiment
from s5_adapters.reproduce.progress import LastRow
from s5_adapters.reproduce.published import MEMORY_LENGTH, META_DMC, POPGYM_BEST, POPGYM_HARD
from s5_adapters.reproduce.reports import write_report
from s5_adapters.reproduce.reports.lines import Line
from s5_adapters.reproduce.reports.returns import budget, normalised, returns_within
from s5_adapters.reproduce.reports.robust import falls
from s5_adapters.reproduce.reports.scaling import flatness
from s5_adapters.reproduce.runners import adapt, sb3, scaling, train
from s5_adapters.reproduce.spec import (
    LAYERS_BESIDE_S5,
    Cell,
    Entry,
    adapting,
    cells,
    choose,
    configuration,
    trained,
)
from s5_adapters.sweeps.curves import best_return, final_return, largest_fall, return_within
from s5_adapters.sweeps.folder import read_commands, read_failures, read_results, write_sweep
from s5_adapters.sweeps.machine import machine, usable_cores
from s5_adapters.sweeps.processes import Job, run_jobs
from s5_adapters.sweeps.statistics import stratified_estimate
from s5_envs.in_context.meta_dmc import TASKS
from s5_envs.listing import registry_table
from tests.purejax.helpers import small_config

CHECKOUT = Path(__file__).resolve().parents[1]
RESULTS = CHECKOUT / "benchmarks" / "results"
TASK = "RepeatPreviousEasy"
WHERE = {"machine": machine("cpu"), "load_average": 0.5, "side_by_side": 1}


def tiny(memory: str = "s5", **changes: Any) -> Entry:
    sizes = {"d_model": 8, "n_layers": 1}
    config = small_config(memory=memory, memory_config=sizes, num_steps=64, total_steps=8 * 256, **changes)
    return trained(TASK, config, setting="tiny", group="tiny")


CELL = Cell(tiny("feedforward"), (0,), "cpu")


def replace_popgym_hard(monkeypatch: pytest.MonkeyPatch, *entries: Entry) -> None:
    """Put tiny lines in place of those of `popgym-hard`, and compile quickly, and once for all tests."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setattr(command, "CACHE_NAME", os.environ["JAX_COMPILATION_CACHE_DIR"])
    real = find_experiment("popgym-hard")
    made = dataclasses.replace(real, entries=lambda scale: entries, seeds={"small": 1, "paper": 1})
    monkeypatch.setattr("s5_adapters.reproduce.experiments.popgym_hard.EXPERIMENT", made)


# --- what is run ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", experiment_names())
@pytest.mark.parametrize("scale", ["small", "paper"])
def test_every_experiment_has_cells_that_differ_and_come_back_from_json(name: str, scale: Any) -> None:
    experiment = find_experiment(name)
    entries = experiment.entries(scale)
    every = list(cells(entries, experiment.seeds[scale], "cpu"))
    assert len({cell.name for cell in every}) == len(every)
    assert len({entry.label for entry in entries}) == len(entries)
    cell = every[-1]
    again = Cell.from_dict(json.loads(json.dumps(cell.to_dict())))
    assert again == cell
    assert again.name == cell.name
    assert not set(cell.name) & set("/ \\:*")


def test_memories_of_a_task_have_as_many_parameters_as_s5() -> None:
    for name in ("popgym-hard", "popgym"):
        sizes = {
            entry.memory: parameters_of_memory(entry)
            for entry in choose(find_experiment(name).entries("small"), ["RepeatPreviousHard"])
        }
        assert sizes.keys() - {"s5 without resets"} == {"s5", "gru", "lstm", "feedforward"}
        assert all(0.8 < size / sizes["s5"] < 1.25 for size in sizes.values()), sizes


def parameters_of_memory(entry: Entry) -> int:
    config = configuration(entry.work)
    return count_params(make_memory(config.memory, **dict(config.memory_config)), config.encoder[-1])


def test_popgym_is_whole_and_the_published_numbers_are_of_tasks_that_there_are() -> None:
    ids = {row.env_id for row in registry_table()}
    assert {entry.task for entry in find_experiment("popgym").entries("small")} == ids
    assert POPGYM_HARD.values.keys() <= ids
    assert POPGYM_HARD.find("RepeatPreviousHard", "s5") == ".91"
    assert POPGYM_HARD.find("PositionOnlyPendulumHard", "s5 without resets") == ".71"
    assert POPGYM_BEST.find("RepeatPreviousHard", "gru") == ".191 (LMU)"
    assert POPGYM_BEST.find("AutoencodeEasy", "gru") == "-"


@pytest.mark.parametrize(("scale", "usual"), [("small", "bootstrap"), ("paper", "terminal")])
def test_popgym_hard_has_both_meanings_of_a_time_limit_and_s5_without_resets(scale: Any, usual: str) -> None:
    entries = find_experiment("popgym-hard").entries(scale)
    of = {entry.label: entry.work["config"] for entry in entries}
    assert {of[f"RepeatPreviousHard/{memory}/{scale}"]["time_limit"] for memory in ("s5", "gru")} == {usual}
    for task in ("PositionOnlyCartPoleHard", "NoisyPositionOnlyPendulumHard"):
        whole = of[f"{task}/s5/{scale}"]
        assert of[f"{task}/s5 without resets/{scale}"] == {**whole, "resets": False}
        other = {"bootstrap": "terminal", "terminal": "bootstrap"}[usual]
        assert of[f"{task}/s5/{scale} {other}"] == {**whole, "time_limit": other}
    assert not any(label.startswith("RepeatPreviousHard") and other in label for label in of)


def test_memory_length_has_the_published_setting_beside_ours() -> None:
    entries = {entry.label: entry for entry in find_experiment("memory-length").entries("small")}
    assert "MemoryChain-2048/s5/ours" in entries
    assert "MemoryChain-256/s5/published" not in entries
    work = entries["MemoryChain-128/lstm/published"].work
    config = configuration(work)
    assert isinstance(config, A2CConfig)
    assert config.num_updates == 10_000 * 129 // 32
    assert train.describe(work)["state_numbers"] == 2 * 256
    assert MEMORY_LENGTH.find("MemoryChain-8", "lstm") == MEMORY_LENGTH.find("MemoryChain-128", "s5") == "1.0"
    whole = find_experiment("memory-length").entries("paper")
    assert {entry.position for entry in whole if entry.setting == "published"} >= {4, 8, 512, 2048, 4096}


def test_a_robust_setting_changes_one_thing_and_novel_cartpole_has_ten_seeds() -> None:
    experiment = find_experiment("robust")
    entries = {entry.label: entry for entry in experiment.entries("small")}
    default = entries["RepeatPreviousEasy/s5/default"].work["config"]
    changed = {
        "dynamics at 0.1 of the rate": "dynamics_lr_scale",
        "memory at 0.3 of the rate": "lr_scales",
        "no target_kl": "target_kl",
    }
    for setting, name in changed.items():
        config = entries[f"RepeatPreviousEasy/s5/{setting}"].work["config"]
        assert [key for key in default if config[key] != default[key]] == [name]
    for task, dt_min in (("RepeatPreviousEasy", 0.01), ("PositionOnlyCartPoleEasy", 0.001)):
        now, before = (
            entries[f"{task}/s5/{setting}"].work["config"] for setting in ("default", "default before")
        )
        assert (now["memory_config"]["dt_min"], now["memory_config"]["dt_max"]) == (0.01, 1.0)
        earlier = {"dt_min": dt_min, "dt_max": 0.1, "clip_eigenvalues": False}
        memory_config = now["memory_config"] | earlier
        assert before == now | {"memory_config": memory_config, "target_kl": None}
    unbounded = entries["RepeatPreviousEasy/s5/eigenvalues not bounded"].work["config"]["memory_config"]
    assert unbounded == {**default["memory_config"], "clip_eigenvalues": False}
    assert default["memory_config"]["clip_eigenvalues"]
    half = entries["RepeatPreviousEasy/s5/half learning rate"].work["config"]
    assert half["learning_rate"] == default["learning_rate"] / 2
    counts = Counter(cell.entry.task for cell in cells(list(entries.values()), 20, "cpu"))
    novel = [entry for entry in entries.values() if entry.task == "CartPoleNoVel"]
    assert counts["CartPoleNoVel"] == 10 * len(novel)
    assert {entry.memory for entry in novel if entry.setting == "default"} == {"s5", "s5 on segments", "lstm"}
    stock, segments = (entries[f"CartPoleNoVel/{memory}/default"].work for memory in ("s5", "s5 on segments"))
    assert {name for name in stock if stock[name] != segments[name]} == {"algorithm"}


@pytest.mark.parametrize(("folders", "kind"), [("reproduce-*", Cell), ("sweep-*", bench.Cell)])
def test_committed_cells_are_known_by_what_they_hold(folders: str, kind: Any) -> None:
    """Else a field that a configuration gains would have a sweep of hours run again."""
    files = list(RESULTS.glob(f"{folders}/runs/*.json"))
    assert files
    for file in files:
        assert kind.from_dict(json.loads(file.read_text())["cell"]).name == file.stem


def test_seeds_are_in_turn_on_a_cpu_and_together_on_a_gpu() -> None:
    entries = (tiny(), tiny("gru"))
    assert [(cell.entry.memory, cell.seeds) for cell in cells(entries, 2, "cpu")] == [
        ("s5", (0,)),
        ("gru", (0,)),
        ("s5", (1,)),
        ("gru", (1,)),
    ]
    assert [cell.seeds for cell in cells(entries, 2, "gpu")] == [(0, 1), (0, 1)]


def test_lines_are_chosen_by_patterns() -> None:
    entries = find_experiment("popgym-hard").entries("small")
    assert choose(entries, []) == entries
    assert [entry.memory for entry in choose(entries, ["RepeatPreviousHard"])] == [
        "s5",
        "gru",
        "lstm",
        "feedforward",
        "s5 without resets",
    ]
    assert {entry.task for entry in choose(entries, ["*Pendulum*/gru"])} == {
        "PositionOnlyPendulumHard",
        "NoisyPositionOnlyPendulumHard",
    }
    assert len(choose(entries, ["*/s5/small", "RepeatPreviousHard/gru"])) == 6


# --- running ----------------------------------------------------------------------------------------


class Run(NamedTuple):
    """A cell that nothing disturbed."""

    result: dict[str, Any]
    killed: Path
    """Its folder as it was after its third update of eight: what a kill leaves, whose lock goes with it."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("whole")
    save = train.Trainer.save

    def save_and_copy(trainer: train.Trainer) -> Path:
        saved = save(trainer)
        if trainer.update == 3:
            shutil.copytree(folder / "run", folder / "killed")
        return saved

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.Trainer, "save", save_and_copy)
        return Run(train.run(CELL, folder / "run"), folder / "killed")


def test_a_killed_cell_goes_on_and_a_failing_one_is_named(
    whole: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing = tiny("gru", env_id="Nowhere")
    replace_popgym_hard(monkeypatch, failing, CELL.entry)

    unfinished = tmp_path / "unfinished" / CELL.name
    shutil.copytree(whole.killed, unfinished)
    assert [row["update"] for row in read_log(unfinished)] == [1, 2, 3]
    assert main(["reproduce", "popgym-hard", "-o", str(tmp_path)]) == 1
    assert "1 of 2 cells failed; the same command tries them again" in capsys.readouterr().out
    (result,) = read_results(tmp_path)
    (resumed,), (undisturbed,) = result["runs"], whole.result["runs"]
    for name in ("mmer", "final_return"):
        assert resumed[name] == undisturbed[name]
    for name in ("step", "episode_return"):
        assert resumed["curve"][name] == undisturbed["curve"][name]
    assert not unfinished.exists()
    assert result["side_by_side"] == 1

    ((name, reason),) = read_failures(tmp_path).items()
    assert name.startswith(f"{TASK}-gru-tiny-seed0-cpu-")
    assert "unknown environment 'Nowhere'" in reason
    text = (tmp_path / "report.md").read_text()
    assert f"- {name}: {reason}" in text.split("## Cells without a result")[1]
    sizes = f"{result['parameters']:,} | {result['state_numbers']:,} | 1 | 2,048"
    assert f"| {TASK} | feedforward | tiny | {sizes} | " in text
    for plot in ("step-tiny.png", "seconds-tiny.png", "final-tiny.png"):
        assert (tmp_path / plot).read_bytes().startswith(b"\x89PNG")
        assert f"({plot})" in text

    replace_popgym_hard(monkeypatch, CELL.entry)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    assert main(["reproduce", "popgym-hard", "-o", str(tmp_path)]) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()} == before
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("done before")
    assert lines[-1] == f"wrote {tmp_path / 'report.md'}"
    assert read_failures(tmp_path) == {name: reason}, "what an earlier command left is still missing"


def test_a_folder_keeps_the_commands_that_made_it_and_names_what_was_interrupted(tmp_path: Path) -> None:
    write_sweep(tmp_path, "first", {"begun": {}, "failed": {}, "never": {}})
    (tmp_path / "runs").mkdir()
    for name in ("begun", "failed"):
        (tmp_path / "runs" / f"{name}.log").write_text("" if name == "begun" else "words\nwhy\n")
    (tmp_path / "runs" / "begun.cell").write_text("{}")
    write_sweep(tmp_path, "second", {"waiting": {}})
    write_sweep(tmp_path, "first", {"waiting": {}})
    assert read_commands(tmp_path) == ["second", "first"]
    assert read_failures(tmp_path) == {
        "begun": "interrupted, or under way",
        "failed": "why",
        "waiting": "not run yet",
    }
    (tmp_path / "sweep.json").write_text('{"commands": []')
    with pytest.raises(ValueError, match=r"sweep\.json: not the note of a sweep: "):
        write_sweep(tmp_path, "third", {})


def test_a_report_is_of_one_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "runs" / "one.json"
    file.parent.mkdir()
    cell = Cell(tiny(), (0,), "cpu").to_dict()
    for content, message in (
        ({"cell": cell, **WHERE}, f"{tmp_path}: a run of task '{TASK}' there, expected runs of scaling"),
        ({}, f"{file}: not the result of a run: KeyError('machine')"),
        ([], f"{file}: not the result of a run: "),
    ):
        file.write_text(json.dumps(content))
        assert main(["reproduce", "scaling", "--report", "-o", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"s5-adapters: {message}")
        assert error.count("\n") == 1
    assert main(["reproduce", "scaling", "-o", str(file)]) == 2
    assert capsys.readouterr().err.startswith("s5-adapters: [Errno ")


def test_all_seeds_in_one_program_give_what_they_give_alone(whole: Run, tmp_path: Path) -> None:
    together = train.run(Cell(CELL.entry, (1, 0), "gpu"), tmp_path)
    assert [run["seed"] for run in together["runs"]] == [1, 0]
    one, other = together["runs"][1], whole.result["runs"][0]
    assert one["steps"] == other["steps"] == 2048
    np.testing.assert_allclose(one["mmer"], other["mmer"], atol=0.05)
    assert one["curve"]["step"] == other["curve"]["step"]
    assert (
        together["parameters"] == whole.result["parameters"] == train.describe(CELL.entry.work)["parameters"]
    )


def test_a_job_ends_with_the_sweep_that_started_it(tmp_path: Path) -> None:
    sweep = f"""
from pathlib import Path
from s5_adapters.sweeps.processes import Job, run_jobs
job = Job("sleeper", {{"file": {str(tmp_path / "pid")!r}, "until": "never"}}, "tests.sleeper")
run_jobs([job], Path({str(tmp_path)!r}), command="", timeout=60)
"""
    process = subprocess.Popen([sys.executable, "-c", sweep], cwd=CHECKOUT)
    pid = wait_for(lambda: (tmp_path / "pid").exists() and int((tmp_path / "pid").read_text() or 0))
    process.kill()
    process.wait()
    assert wait_for(lambda: not is_alive(pid))


def test_jobs_run_side_by_side_on_cores_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CHECKOUT)
    first, second = tmp_path / "first", tmp_path / "second"
    jobs = [
        Job("one", {"file": str(first), "until": str(second)}, "tests.sleeper"),
        Job("other", {"file": str(second), "until": str(first)}, "tests.sleeper"),
    ]
    seen, lines = set(), list[str]()
    outcomes = run_jobs(
        jobs,
        tmp_path,
        command="",
        timeout=60,
        side_by_side=2,
        say=lines.append,
        watch=lambda behind, names: seen.add((behind, tuple(names))),
    )
    assert [outcome.name for outcome in outcomes] == ["one", "other"]
    assert (0, ("one", "other")) in seen
    cores = usable_cores()
    for outcome, share in zip(outcomes, (cores - cores // 2, cores // 2), strict=True):
        assert outcome.result is not None
        pinned = share if hasattr(os, "sched_setaffinity") else cores
        assert json.loads(outcome.result.read_text()) == {"met": True, "cores": pinned}
    assert {line.partition(" (")[0] for line in lines} == {"[1/2] one: done", "[2/2] other: done"}


def test_what_a_bar_says_of_a_run_is_read_once(tmp_path: Path) -> None:
    log, row = tmp_path / "log.jsonl", '{"step": %d, "episode_return": %s}\n'
    last = LastRow(log)
    assert last.read() == ""
    log.write_text(row % (1000, "0.5") + row % (2000, "null") + '{"step": 30')
    assert last.read() == "2,000 steps"
    with log.open("r+") as file:  # damage what was read: it is not read again
        file.write("#" * 20)
        file.seek(0, os.SEEK_END)
        file.write('00, "episode_return": 0.25}\n')
    assert last.read() == last.read() == "3,000 steps, return 0.250"
    write_atomically(log, row % (1000, "0.5"))  # as a run that goes on begins
    assert last.read() == "1,000 steps, return 0.500"


def wait_for(question: Any, seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := question():
            return answer
        time.sleep(0.05)
    raise AssertionError("it did not come to pass")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_scaling_measures_a_memory_and_says_what_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"d_model": 8, "d_state": 8, "n_layers": 1}
    work = {"memory": "s5", "memory_config": config, "length": 16, "batch": 2}
    cell = Cell(Entry("length-128", "s5", "small", "scaling", work, position=16), (0,), "cpu")
    result = scaling.run(cell, tmp_path)
    assert result["fits"]
    assert result["training_ns_per_step"] == pytest.approx(1e9 * result["training_seconds"] / 32)
    assert result["acting_us"] > 0
    assert result["state_bytes"] == 4 * result["state_numbers"] == 4 * 8
    monkeypatch.setattr(scaling, "available_bytes", lambda device: 0)
    assert scaling.run(cell, tmp_path)["fits"] is False

    whole = {"cell": cell.to_dict(), **WHERE, **result}
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "one.json").write_text(json.dumps(whole))
    none = {**whole, "fits": False, "room_bytes": 2**30}
    (tmp_path / "runs" / "two.json").write_text(json.dumps({**none, "cell": longer(cell).to_dict()}))
    text = write_report("scaling", tmp_path).read_text()
    assert "does not fit into 1 GiB" in text
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_sb3_contribs_test_of_learning_is_a_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sb3, "EVALUATE_EVERY", 64)
    monkeypatch.setattr(sb3, "EVALUATION_EPISODES", 2)
    entry = next(
        entry
        for entry in find_experiment("robust").entries("small")
        if entry.label == "CartPoleNoVel/lstm/default"
    )
    small = {"arguments": {**entry.work["arguments"], "n_steps": 16, "n_epochs": 1}, "steps": 128}
    cell = Cell(dataclasses.replace(entry, work={**entry.work, **small, "anneal": True}), (3,), "cpu")
    result = sb3.run(cell, tmp_path)
    assert {name: result[name] for name in ("parameters", "state_numbers")} == {
        name: value for name, value in sb3.describe(entry.work).items() if name != "steps"
    }
    (run,) = result["runs"]
    assert run["curve"]["step"] == [64, 128]
    assert run["final_return"] == run["evaluation"]["mean"] >= 1
    assert 0 < run["curve"]["seconds"][0] <= run["curve"]["seconds"][1] <= run["seconds"] < 60

    run["curve"]["episode_return"] = [470.0, 440.0]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "one.json").write_text(json.dumps({**result, **WHERE, "cell": cell.to_dict()}))
    text = write_report("robust", tmp_path).read_text()
    assert "| CartPoleNoVel | lstm | default | 1 | 128 | 450 | 0 of 1 | " in text
    assert "| 30.000 | 30.000 |" in text


def longer(cell: Cell) -> Cell:
    work = {**cell.entry.work, "length": 32}
    return dataclasses.replace(cell, entry=dataclasses.replace(cell.entry, work=work, position=32))


# --- arithmetic -------------------------------------------------------------------------------------


def test_what_is_read_off_a_curve() -> None:
    steps = [10 * i for i in range(1, 21)]
    returns: list[float | None] = [0.1 * i for i in range(1, 19)] + [1.0, None]
    assert final_return(steps, returns) == pytest.approx(1.0)  # the last tenth: steps 190 and 200
    assert best_return(returns) == pytest.approx(1.8)
    seconds = [0.5 * i for i in range(1, 21)]
    assert return_within(seconds, steps, returns, 5.0) == pytest.approx(1.0)  # step 100 alone
    assert return_within(seconds, steps, returns, 5.4) == pytest.approx(1.0)
    assert return_within(seconds, steps, returns, 0.1) is None
    assert return_within(seconds, steps, returns, 99.0) == final_return(steps, returns)
    assert best_return([None]) is None
    assert final_return([1], [None]) is None


def test_a_fall_counts_from_the_bar_on() -> None:
    returns = [0.0, 0.6, 0.1, 0.9, 1.0, 0.7, 1.0]
    assert largest_fall(returns, 1) == pytest.approx(0.5)
    assert largest_fall(returns, 1, bar=0.9) == pytest.approx(0.3)
    assert largest_fall(returns, 2, bar=0.9) == pytest.approx(0.1)  # means .3 .35 .5 .95 .85 .85
    assert largest_fall(returns, 1, bar=1.1) is None
    assert largest_fall([None, 1.0], 2) is None


def test_the_stratified_mean_and_its_interval() -> None:
    found = stratified_estimate([[0.0, 1.0], [2.0, 30.0]])
    assert found.value == 1.5
    assert found.low <= 1.5 <= found.high
    # Within a task whose seeds agree nothing varies, however far tasks are apart.
    assert stratified_estimate([[1.0, 1.0], [5.0, 5.0]]) == (3.0, 3.0, 3.0)
    assert str(stratified_estimate([[1.0], [2.0]])) == "1.500"
    assert stratified_estimate([[1.0, 1.0], [2.0]]).value == pytest.approx(4 / 3)


def line_of(memory: str, finals: list[float], seconds: float, task: str = TASK) -> Line:
    entry = dataclasses.replace(tiny(memory), task=task)
    runs = [
        {
            "seed": seed,
            "steps": 100,
            "seconds": seconds,
            "mmer": final + 0.1,
            "final_return": final,
            "evaluation": {"episodes": 4, "mean": final, "standard_error": 0.0},
            "curve": {
                "step": [10 * i for i in range(1, 11)],
                "seconds": [seconds * i / 10 for i in range(1, 11)],
                "episode_return": [final * i / 10 for i in range(1, 11)],
            },
        }
        for seed, final in enumerate(finals)
    ]
    result = {"parameters": 1234, "state_numbers": 8, "steps": 100, "compile_seconds": 3.0, "runs": runs}
    return Line(entry, [result])


def test_equal_seconds_are_those_of_s5() -> None:
    s5, gru = line_of("s5", [1.0, 0.8], 20.0), line_of("gru", [0.5], 80.0)
    assert budget([gru, s5]) == 20.0
    assert budget([gru]) == 80.0
    assert returns_within(s5, 20.0) == [1.0, 0.8]
    assert returns_within(gru, 20.0) == [pytest.approx(0.1)]  # a fifth of its updates: step 20, return 0.1


def test_normalised_returns_are_of_the_tasks_that_every_memory_has() -> None:
    scores = {row.env_id: row for row in registry_table()}
    easy, hard = scores["RepeatPreviousEasy"], scores["RepeatPreviousHard"]
    half = (easy.random_score + easy.best_score) / 2
    lines = [
        line_of("s5", [easy.best_score], 1.0),
        line_of("gru", [half], 1.0),
        line_of("s5", [hard.random_score], 1.0, "RepeatPreviousHard"),
    ]
    found = normalised(lines)
    assert found["all", "s5"].value == pytest.approx(1.0)
    assert found["all", "gru"].value == pytest.approx(0.5)
    both = [*lines, line_of("gru", [hard.best_score], 1.0, "RepeatPreviousHard")]
    assert normalised(both)["all", "s5"].value == pytest.approx(0.5)


def test_the_table_says_what_was_measured(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    beside = {"s5": 1, "gru": 2}
    for memory, finals, seconds in (("s5", [0.9, 0.97], 20.0), ("gru", [0.5, 0.5], 80.0)):
        line = line_of(memory, finals, seconds, "RepeatPreviousHard")
        for run in line.runs:
            cell = Cell(line.entry, (run["seed"],), "cpu")
            where = {**WHERE, "side_by_side": beside[memory]}
            result = {**line.results[0], "runs": [run], "cell": cell.to_dict(), **where}
            (tmp_path / "runs" / f"{cell.name}.json").write_text(json.dumps(result))
    text = write_report("popgym-hard", tmp_path).read_text()
    assert (
        "| RepeatPreviousHard | s5 | tiny | 1,234 | 8 | 2 | 100 | 20 | 23 | 1.035 ± 0.049 | "
        "0.935 [0.900, 0.970] | 0.957 | 0.935 | 0.935 in 20 s | 1 of 2 | .91 | .191 (LMU) |" in text
    )
    assert (
        "| RepeatPreviousHard | gru | tiny | 1,234 | 8 | 2 | 100 | 80† | 83† | 0.600 ± 0.000 | "
        "0.500 [0.500, 0.500] | 0.666 | 0.500 | 0.100 in 20 s | 0 of 2 | -.46 | .191 (LMU) |" in text
    )
    assert "; cells at a time: 1 (2 of 4), 2 (2 of 4); seconds with † are of cells that shared " in text


def test_lengths_have_a_plot_and_no_score_of_popgym(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for length in (16, 512):
        line = line_of("s5", [0.5], 1.0, f"MemoryChain-{length}")
        cell = Cell(dataclasses.replace(line.entry, position=length, group="chain"), (0,), "cpu")
        result = {**line.results[0], "cell": cell.to_dict(), **WHERE}
        (tmp_path / "runs" / f"{length}.json").write_text(json.dumps(result))
    text = write_report("memory-length", tmp_path).read_text()
    assert "Normalised" not in text
    assert "load average at the end of a cell: 0.5 to 0.5; cells at a time: 1 (2 of 2)" in text
    assert "†" not in text
    assert "| MemoryChain-512 | s5 | tiny |" in text
    assert (tmp_path / "length-chain.png").read_bytes().startswith(b"\x89PNG")


def test_falls_and_flatness() -> None:
    line = line_of("s5", [1.0], 1.0)
    line.runs[0]["curve"]["episode_return"][:] = [0.0, 0.96, 0.5, 1.0, 0.9, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert falls(line, 0.95) == [pytest.approx(0.46)]
    entry = Entry("length-1024", "s5", "small", "scaling", {}, position=1024)
    measured = [
        Line(dataclasses.replace(entry, position=length), [{"fits": fits, "training_ns_per_step": time}])
        for length, time, fits in (
            (128, 900.0, True),
            (1024, 100.0, True),
            (2048, 110.0, True),
            (4096, 1.0, False),
        )
    ]
    assert flatness(measured) == {"s5": pytest.approx(1.1)}


def test_a_long_curve_is_thinned_to_means() -> None:
    count = 2 * train.CURVE_POINTS
    returns: list[float | None] = [None, *(float(i) for i in range(1, count))]
    curve = train.thin(list(range(1, count + 1)), [0.5 * i for i in range(1, count + 1)], returns)
    assert len(curve["step"]) == train.CURVE_POINTS
    assert curve["step"][:2] == [2, 4]
    assert curve["seconds"][:2] == [1.0, 2.0]
    assert curve["episode_return"][:2] == [1.0, 2.5]


# --- the command line -------------------------------------------------------------------------------


def test_a_dry_run_lists_parameters_and_runs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["reproduce", "popgym-hard", "--only", "RepeatPreviousHard/s5", "--dry-run"]
    assert main([*arguments, "-o", str(tmp_path / "none")]) == 0
    out = capsys.readouterr().out
    (row,) = (line for line in out.splitlines() if "RepeatPreviousHard" in line)
    assert row.split()[:8] == ["RepeatPreviousHard", "s5", "small", "5", "0", "232,453", "512", "2,496,000"]
    assert out.splitlines()[-1].startswith("5 cells, about ")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["popgym-herd"], "experiment: got 'popgym-herd', expected one of popgym-hard, "),
        (
            ["popgym-hard", "--only", "Nowhere/s5"],
            "only: got 'Nowhere/s5', expected TASK, TASK/MEMORY or TASK/MEMORY/SETTING of ",
        ),
        (["popgym-hard", "--seeds", "0"], "seeds: got 0, expected an integer >= 1"),
        (["popgym-hard", "--jobs", "0"], "jobs: got 0, expected an integer >= 1"),
        (["popgym-hard", "--jobs", "9999"], "jobs: got 9999, expected at most the "),
        (["scaling", "--jobs", "2"], "jobs: got 2, expected 1: scaling measures seconds"),
        (["popgym-hard", "--jobs", "2", "--device", "gpu"], "jobs: got 2, expected 1: on a GPU the seeds "),
        (["popgym-hard", "--timeout", "-1"], "timeout: got -1.0, expected a finite number > 0"),
        (["popgym-hard", "--report", "-o", "nowhere"], "nowhere: no runs/*.json there, expected the folder"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"s5-adapters: {message}")
    assert error.count("\n") == 1


# --- tasks of several trials ------------------------------------------------------------------------


def test_a_policy_is_asked_within_tasks_and_published_returns_stand_beside(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sizes = {"d_model": 8, "n_layers": 1}
    config = small_config(
        env_id="MetaCartPole-v0",
        env_kwargs={"num_trials": 2},
        memory="gru",
        memory_config=sizes,
        num_steps=16,
        total_steps=16 * 8,
    )
    entry = adapting("MetaCartPole", config, memory="gru", setting="small", trials=4)
    monkeypatch.setattr(adapt, "TASKS", 3)
    found = adapt.run(Cell(entry, (1,), "cpu"), tmp_path / "run")
    assert str(tmp_path) not in json.dumps(found), "a result is read on other machines"
    (run,) = found["runs"]
    (family,) = run["families"]
    assert (family["split"], family["family"]) == ("training", "MetaCartPole")
    by_trial = family["by_trial"]["mean"]
    assert len(by_trial) == 4
    assert all(0 < value <= 1 for value in by_trial)

    (tmp_path / "runs").mkdir()
    for seed, shift in ((0, 0.0), (1, 0.2)):
        moved = {**family, "by_trial": {"mean": [value + shift for value in by_trial]}}
        result = {
            **found,
            **WHERE,
            "cell": Cell(entry, (seed,), "cpu").to_dict(),
            "runs": [{**run, "seed": seed, "families": [moved]}],
        }
        (tmp_path / "runs" / f"{seed}.json").write_text(json.dumps(result))
    text = write_report("meta-cartpole", tmp_path).read_text()
    first = by_trial[0]
    assert f"| MetaCartPole | training | gru | 2 | {first + 0.1:.3f} ± 0.100 |" in text
    mean = float(np.mean(by_trial))
    assert f"| {mean:.3f} {mean + 0.2:.3f} |" in text
    assert "| s5, Lu et al. |  | .27 | .365 | .395 |" in text
    assert (tmp_path / "adaptation.png").exists()


@pytest.mark.parametrize(
    ("name", "task", "memory"),
    [("meta-cartpole", "MetaCartPole", "gru"), ("meta-control", "MetaControl", "lstm")],
)
def test_memories_beside_a_deep_s5_have_its_parameters_in_fewer_layers(
    name: str, task: str, memory: str
) -> None:
    for scale, layers in LAYERS_BESIDE_S5.items():
        entries = {entry.label: entry for entry in find_experiment(name).entries(scale)}
        entry, s5 = entries[f"{task}/{memory}/{scale}"], entries[f"{task}/s5/{scale}"]
        assert configuration(entry.work).memory_config["n_layers"] == layers
        assert configuration(s5.work).memory_config["n_layers"] > layers
        assert 0.8 < parameters_of_memory(entry) / parameters_of_memory(s5) < 1.25


@pytest.mark.parametrize(
    ("name", "task", "memory", "share"),
    [("meta-cartpole", "MetaCartPole", "gru", 0.4), ("meta-control", "MetaControl", "lstm", 0.27)],
)
def test_a_slower_memory_is_trained_for_s5_s_seconds_too(
    name: str, task: str, memory: str, share: float
) -> None:
    entries = {entry.label: entry for entry in find_experiment(name).entries("small")}
    shorter = configuration(entries[f"{task}/{memory}/seconds of s5"].work)
    whole = configuration(entries[f"{task}/{memory}/small"].work)
    assert dataclasses.replace(shorter, total_steps=whole.total_steps) == whole
    assert shorter.total_steps / whole.total_steps == pytest.approx(share, abs=0.005)


def test_meta_control_has_held_out_families_and_s5_on_them_alone() -> None:
    entries = {entry.label: entry for entry in find_experiment("meta-control").entries("small")}
    alone = configuration(entries["MetaControl/s5/trained on them alone"].work)
    whole = configuration(entries["MetaControl/s5/small"].work)
    assert dataclasses.replace(alone, env_kwargs=whole.env_kwargs) == whole
    assert dict(alone.env_kwargs) == {**whole.env_kwargs, "split": "held_out"}
    untrained = entries["MetaControl/untrained/small"].work
    assert configuration(untrained).num_updates == 1
    assert all(entry.work["held_out"] for entry in entries.values() if entry.setting == "small")


@pytest.mark.parametrize(
    ("by_trial", "by_step", "drawn"),
    [
        ([0.5, 0.9], [0.005, 0.005], ["trial"]),
        ([9.0], [0.1, 0.2], ["step within the task"]),
        ([0.5, 0.9], [0.1, 0.2], ["trial", "step within the task"]),
        ([1.0], [1.0], ["trial"]),
    ],
)
def test_a_figure_leaves_out_the_axis_that_tells_nothing(
    tmp_path: Path, by_trial: list[float], by_step: list[float], drawn: list[str]
) -> None:
    trials, walk = (Curve(np.array(mean), np.zeros(len(mean))) for mean in (by_trial, by_step))
    steps = np.arange(1, len(by_step) + 1)
    found = Adaptation("s5", (), "training", "A", trials, steps, walk, np.ones(len(steps)))
    draw([found], tmp_path / "a.svg")
    texts = re.findall(r"<!-- (trial|step within the task) -->", (tmp_path / "a.svg").read_text())
    assert texts == drawn


def test_a_line_has_one_colour_in_all_families_and_published_returns_stand_by_family(tmp_path: Path) -> None:
    """The held-out family alone has the second line, whose colour is its own."""
    one = Curve(np.array([1.0]), np.array([0.0]))
    whole = [
        Adaptation(label, (), split, family, one, np.array([1]), one, np.ones(1))
        for label, split, family in (
            ("s5", "training", "PointMass"),
            ("gru", "held_out", "ReacherHard"),
            ("s5", "held_out", "ReacherHard"),
        )
    ]
    draw(whole, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    colors = re.findall(r"stroke: (#1f77b4|#ff7f0e)", text)
    assert {"#1f77b4", "#ff7f0e"} == set(colors)
    assert META_DMC.find("ReacherHard", "lstm") == "614"
    tasks = set(TASKS)
    assert META_DMC.values.keys() == tasks
