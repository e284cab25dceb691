"""The benchmark across ecosystems: cells, resumption, failures, statistics, the report."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s5_adapters.bench.report import write_report
from s5_adapters.bench.spec import FRAMEWORKS, OWN, SIZES, Cell, Spec, cells, specs
from s5_adapters.bench.sweep import run_sweep, weights_file
from s5_adapters.cli import main
from s5_adapters.core import memory_names
from s5_adapters.sweeps.folder import read_failures
from s5_adapters.sweeps.machine import machine, machine_slug
from s5_adapters.sweeps.statistics import estimate, interquartile_mean
from tests.purejax.helpers import small_config

ALL_MEMORIES = (*memory_names(), OWN)
TINY = Spec(small_config(activation="tanh", total_steps=96, num_minibatches=2), threshold=-1.0, row_length=8)
REPLACED = dataclasses.replace


def test_a_cell_comes_back_from_json_and_its_name_tells_what_it_runs() -> None:
    cell = Cell(specs("small")[0], "sb3", "gru", 3)
    again = Cell.from_dict(json.loads(json.dumps(cell.to_dict())))
    assert again == cell
    assert again.name == cell.name
    assert cell.name.startswith("RepeatPreviousEasy-sb3-gru-seed3-cpu-")
    longer = REPLACED(cell.spec, ppo=REPLACED(cell.spec.ppo, total_steps=99_999))
    changed = [REPLACED(cell, seed=4), REPLACED(cell, device="gpu"), REPLACED(cell, spec=longer)]
    assert len({c.name for c in (cell, *changed)}) == 4


@pytest.mark.parametrize("size", SIZES)
def test_every_cell_has_a_network_of_the_specs_width_and_depth(size: str) -> None:
    every = list(cells(specs(size), FRAMEWORKS, ALL_MEMORIES, 2, "cpu"))
    assert len({cell.name for cell in every}) == len(every) == 2 * 2 * (4 * (len(ALL_MEMORIES) - 1) + 2)
    for cell in every:
        config = cell.config
        assert config.memory == {OWN: "lstm"}.get(cell.memory, cell.memory)
        assert (config.memory_config["d_model"], config.memory_config["n_layers"]) == (64, 2)
    assert {cell.framework for cell in every if cell.memory == OWN} == {"sb3", "rllib"}


def test_the_interquartile_mean_and_its_interval() -> None:
    assert interquartile_mean([0.0, 1.0, 2.0, 30.0]) == 1.5
    found = estimate(np.random.default_rng(0).normal(5.0, 1.0, 64))
    assert found.low < found.value < found.high
    assert 0.3 < found.high - found.low < 1.0
    assert math.isnan(estimate([1.0]).low)
    assert estimate([2.0, 2.0]) == (2.0, 2.0, 2.0)


def test_a_sweep_goes_on_after_a_failure_and_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # compile in half the time
    broken, sound = Cell(TINY, "nowhere", "s5", 0), Cell(TINY, "purejax", "s5", 0)
    said: list[str] = []
    outcomes = run_sweep([broken, sound], tmp_path, command="the command", timeout=120, say=said.append)
    assert [outcome.result is None for outcome in outcomes] == [True, False]
    assert "No module named" in outcomes[0].reason
    assert "\n" not in outcomes[0].reason
    assert list(read_failures(tmp_path)) == [broken.name]
    assert weights_file(sound, tmp_path).is_file()

    result = json.loads(outcomes[1].result.read_text())
    assert [row["step"] for row in result["curve"]] == [32, 64, 96]
    assert result["steps_per_second"].keys() == {"total", "collect", "update"}
    assert all(speed > 0 for speed in result["steps_per_second"].values())
    assert result["compile_seconds"] > 0
    assert result["peak_memory_mib"]["process"] > 50
    assert result["differences"] == []

    before = outcomes[1].result.stat().st_mtime_ns
    again = run_sweep([sound], tmp_path, command="the command", timeout=120, say=said.append)
    assert again[0].result.stat().st_mtime_ns == before
    assert said[-1].endswith("done before")
    assert sorted(path.suffix for path in (tmp_path / "runs").iterdir()) == [".json", ".log"]


def test_a_cell_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    (outcome,) = run_sweep([Cell(TINY, "purejax", "s5", 0)], tmp_path, command="", timeout=0.2, say=str)
    assert outcome.reason == "took longer than 0 s"


def result_of(cell: Cell, final: float | None, speed: float) -> dict[str, Any]:
    rows = [
        {"step": 32 * i, "seconds": i / speed, "episode_return": None if i == 1 else final}
        for i in range(1, 7)
    ]
    return {
        "cell": cell.to_dict(),
        "machine": machine("cpu"),
        "peak_memory_mib": {"process": 1234.5},
        "parameters": 5678,
        "compile_seconds": 2.0,
        "steps_per_second": {"total": 32 * speed, "collect": 64 * speed, "update": None},
        "final_return": final,
        "threshold": {"return": -1.0, "step": 64, "seconds": None if final is None else 2 / speed},
        "differences": ["rows end where episodes end"] if cell.framework == "rllib" else [],
        "curve": rows,
    }


def test_the_report_says_what_was_measured_and_what_was_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").mkdir()
    every = [Cell(TINY, framework, "s5", seed) for framework in ("purejax", "rllib") for seed in range(3)]
    for i, cell in enumerate(every):
        final = None if cell.framework == "rllib" else 0.5 + 0.1 * i
        (tmp_path / "runs" / f"{cell.name}.json").write_text(json.dumps(result_of(cell, final, 10.0 + i)))
    assert main(["bench", "report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'report.md'}\n"
    text = (tmp_path / "report.md").read_text()
    assert (
        "| jitted trainer | s5 | 5,678 | 3 | 352 | 704 | - | 2.0 | 0.2 | 3 of 3 | 0.600 [0.500, 0.700] |"
        in text
    )
    assert "| RLlib | s5 | 5,678 | 3 | 448 | 896 | - | 2.0 | - | 0 of 3 | - | 1,234 |" in text
    assert "- jitted trainer, s5: 0.500, 0.600, 0.700" in text
    assert "- RLlib, s5: -, -, -" in text
    assert "- RLlib: rows end where episodes end" in text
    assert "a GPU: not yet measured" in text
    for name in ("throughput", "steps", "seconds"):
        assert (tmp_path / f"{name}-RepeatPreviousEasy.png").read_bytes().startswith(b"\x89PNG")
        assert f"({name}-RepeatPreviousEasy.png)" in text
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_specs_that_differ_are_not_mixed(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    longer = REPLACED(TINY, ppo=REPLACED(TINY.ppo, total_steps=960))
    for spec in (TINY, longer):
        cell = Cell(spec, "purejax", "s5", 0)
        (tmp_path / "runs" / f"{cell.name}.json").write_text(json.dumps(result_of(cell, 0.5, 10.0)))
    text = write_report(tmp_path).read_text()
    for spec in (TINY, longer):
        assert f"## RepeatPreviousEasy-{spec.digest}\n" in text


def test_a_folder_without_runs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "report", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(ValueError, match="expected the folder of a sweep"):
        write_report(tmp_path)


def test_a_machines_name_is_its_hardware() -> None:
    info = {"platform": "cpu", "device": "AMD EPYC(TM) 7B13 Processor", "cores": 2}
    assert machine_slug(info) == "cpu-amd-epyc-7b13-2-cores"
    assert machine_slug({**info, "platform": "gpu", "device": "NVIDIA H200"}) == "gpu-nvidia-h200"


@pytest.mark.slow  # starts a process for each framework, one of them with Ray: a minute
@pytest.mark.parametrize("memory", ["s5", OWN])
def test_every_framework_runs_a_cell_from_the_same_weights(tmp_path: Path, memory: str) -> None:
    wanted = list(cells((TINY,), FRAMEWORKS, (memory,), 1, "cpu"))
    outcomes = run_sweep(wanted, tmp_path, command="", timeout=300, say=str)
    assert [outcome.reason for outcome in outcomes] == [""] * len(wanted)
    results = [json.loads(outcome.result.read_text()) for outcome in outcomes]
    assert {result["steps"] for result in results} == {96}
    assert all(len(result["curve"]) == 3 for result in results)
    assert write_report(tmp_path).is_file()
