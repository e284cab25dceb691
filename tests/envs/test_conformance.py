"""Recorded episodes go through unharmed, and any harm done to a recording is noticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s5_envs.conformance import main
from tests.envs.record_traces import FAMILIES, record_family

SEED = 31_000


@pytest.mark.parametrize("family", FAMILIES)
def test_replays_the_reference_without_a_difference(family: str, tmp_path: Path, capsys: Any) -> None:
    np.savez(tmp_path / f"{family}.npz", **record_family(family, seed=SEED, episodes=1))
    assert main([str(tmp_path)]) == 0, capsys.readouterr().out
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(family)]
    assert lines
    assert all(line.endswith("ok") for line in lines)


@pytest.fixture(scope="module")
def repeat_previous() -> dict[str, np.ndarray]:
    return record_family("repeat_previous", seed=SEED, episodes=1, variants=("Easy",))


@pytest.fixture(scope="module")
def cartpole() -> dict[str, np.ndarray]:
    return record_family("position_only_cartpole", seed=SEED, episodes=1, variants=("Easy",))


@pytest.fixture(scope="module")
def wrappers() -> dict[str, np.ndarray]:
    arrays = record_family("wrappers", seed=SEED)
    kept = ("RepeatFirstEasy", "MineSweeperEasy")
    meta = {name: entry for name, entry in json.loads(str(arrays["meta"])).items() if name in kept}
    return {name: x for name, x in arrays.items() if name.split("/")[0] in kept} | {
        "meta": np.array(json.dumps(meta))
    }


def _run(folder: Path, family: str, arrays: dict[str, Any], **changed: Any) -> int:
    np.savez(folder / f"{family}.npz", **{**arrays, **changed})
    return main([str(folder)])


def _with(array: np.ndarray, index: Any, value: Any) -> np.ndarray:
    array = array.copy()
    assert (array[index] != value).all()
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("field", "index", "change"),
    [
        ("obs", 20, lambda x: (x + 1) % 4),
        ("obs", 50, lambda x: 7),
        ("reset_obs", 1, lambda x: (x + 1) % 4),
        ("reward", 30, lambda x: x + 1e-3),
        ("reward", 30, lambda x: np.nan),
        ("terminated", 50, lambda x: False),
        ("terminated", 10, lambda x: True),
        ("truncated", 50, lambda x: True),
        ("action", 40, lambda x: (x + 1) % 4),
        ("ep_return", 0, lambda x: x - 0.01),
    ],
)
def test_one_changed_entry_is_a_mismatch(
    field: str, index: int, change: Any, repeat_previous: dict, tmp_path: Path, capsys: Any
) -> None:
    key = f"Easy/{field}"
    changed = _with(repeat_previous[key], index, change(repeat_previous[key][index]))
    assert _run(tmp_path, "repeat_previous", repeat_previous, **{key: changed}) == 1
    assert "DIFFERS" in capsys.readouterr().out


@pytest.mark.parametrize("field", ["obs", "x_next_state", "x_state", "reward"])
def test_one_changed_number_of_physics_is_a_mismatch(field: str, cartpole: dict, tmp_path: Path) -> None:
    key = f"Easy/{field}"
    changed = cartpole[key].copy()
    changed[5] += 1e-3
    assert _run(tmp_path, "position_only_cartpole", cartpole, **{key: changed}) == 1


@pytest.mark.parametrize(
    ("field", "row", "column"), [("flat_obs", 3, 5), ("flat_obs", 0, -1), ("reward", 2, ())]
)
@pytest.mark.parametrize("env_id", ["RepeatFirstEasy", "MineSweeperEasy"])
def test_one_changed_entry_behind_the_wrappers_is_a_mismatch(
    env_id: str, field: str, row: int, column: Any, wrappers: dict, tmp_path: Path
) -> None:
    key = f"{env_id}/{field}"
    changed = wrappers[key].copy()
    row = min(row, len(changed) - 1)
    changed[row if column == () else (row, column)] += 0.5
    assert _run(tmp_path, "wrappers", wrappers, **{key: changed}) == 1


def test_what_cannot_be_replayed_is_a_failure(repeat_previous: dict, tmp_path: Path, capsys: Any) -> None:
    meta = json.loads(str(repeat_previous["meta"]))
    impossible = {f"Impossible/{k.split('/')[1]}": v for k, v in repeat_previous.items() if "/" in k}
    named = np.array(json.dumps(meta | {"Impossible": meta["Easy"]}))
    assert _run(tmp_path, "repeat_previous", repeat_previous | impossible, meta=named) == 1
    assert "NOT REPLAYED: Impossible" in capsys.readouterr().out
    # Fields of a variant that meta does not name, and a variant that meta names without fields.
    assert _run(tmp_path, "repeat_previous", repeat_previous | impossible) == 1
    assert "NOT REPLAYED: Impossible" in capsys.readouterr().out


def test_an_unknown_family_is_a_failure(repeat_previous: dict, tmp_path: Path, capsys: Any) -> None:
    assert _run(tmp_path, "repeat_tomorrow", repeat_previous) == 1
    assert "NOT REPLAYED: Easy" in capsys.readouterr().out


def test_family_option_chooses(repeat_previous: dict, tmp_path: Path, capsys: Any) -> None:
    np.savez(tmp_path / "repeat_tomorrow.npz", **repeat_previous)
    np.savez(tmp_path / "repeat_previous.npz", **repeat_previous)
    assert main([str(tmp_path), "--family", "repeat_previous"]) == 0
    assert "repeat_tomorrow" not in capsys.readouterr().out
    assert main([str(tmp_path), "--family", "repeat_previos"]) == 2
    assert "nearest: repeat_previous" in capsys.readouterr().err


def _without(arrays: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: x for name, x in arrays.items() if name != key}


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda a: _without(a, "meta"), "no 'meta'"),
        (lambda a: _without(a, "Easy/h_dealt_suit"), "'Easy/h_dealt_suit' is missing"),
        (lambda a: _without(a, "Easy/ep_start"), "'Easy/ep_start' is missing"),
        (lambda a: a | {"Easy/reward": a["Easy/reward"][:-1]}, "'Easy/reward' has shape"),
        (lambda a: a | {"Easy/h_dealt_suit": a["Easy/h_dealt_suit"][:, :9]}, "expected 52 cards"),
        (lambda a: a | {"Easy/action": a["Easy/action"][:, None]}, "actions have shape (1,), expected ()"),
        (lambda a: a | {"Easy/ep_start": a["Easy/ep_start"][::-1]}, "increasing offsets"),
        (lambda a: a | {"meta": np.array("{")}, "not JSON"),
        (lambda a: a | {"Easy/obs": a["Easy/obs"].astype(str)}, "must hold numbers"),
    ],
)
def test_bad_files_get_one_clear_line(
    harm: Any, message: str, repeat_previous: dict, tmp_path: Path, capsys: Any
) -> None:
    np.savez(tmp_path / "repeat_previous.npz", **harm(repeat_previous))
    assert main([str(tmp_path)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("conformance: repeat_previous.npz")
    assert message in errors[0]


def test_a_hidden_state_of_another_size_gets_one_clear_line(
    cartpole: dict, tmp_path: Path, capsys: Any
) -> None:
    for key, message in (("h_state", "hidden state has shapes"), ("x_state", "x_state' has rows of shape")):
        narrow = {f"Easy/{key}": cartpole[f"Easy/{key}"][:, :3]}
        assert _run(tmp_path, "position_only_cartpole", cartpole, **narrow) == 2
        assert message in capsys.readouterr().err


def test_bad_folders_get_one_clear_line(tmp_path: Path, capsys: Any) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2
    assert "holds no .npz files" in capsys.readouterr().err
    (tmp_path / "repeat_first.npz").write_bytes(b"no archive")
    assert main([str(tmp_path)]) == 2
    assert "not a readable .npz file" in capsys.readouterr().err
