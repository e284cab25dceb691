"""Environments of an extra: known by prefix, imported when asked for, one line where they are missing."""

from __future__ import annotations

import sys
from typing import Any

import pytest

import s5_envs
from s5_adapters.cli import main
from s5_envs.extras import needed_by


@pytest.mark.parametrize(
    ("env_id", "package", "extra"),
    [
        ("xminigrid/MiniGrid-MemoryS64", "xminigrid", "xland"),
        ("playground/CartpoleSwingup", "mujoco_playground", "control"),
        ("MetaDMC-v0", "mujoco_playground", "control"),
    ],
)
def test_one_line_says_what_to_install(
    monkeypatch: Any, capsys: Any, tmp_path: Any, env_id: str, package: str, extra: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    line = f"{env_id}: {package} is not installed; pip install 's5-adapters[{extra}]'"
    with pytest.raises(ValueError, match="is not installed") as caught:
        s5_envs.make(env_id)
    assert str(caught.value) == line
    assert main(["train", "--env", env_id]) == 2
    assert capsys.readouterr().err == f"s5-adapters: {line}\n"


def test_other_ids_with_a_slash_are_unknown() -> None:
    with pytest.raises(ValueError, match="unknown environment 'minigrid/MemoryS64'"):
        s5_envs.make("minigrid/MemoryS64")


def test_only_missing_modules_are_turned_into_the_line() -> None:
    with pytest.raises(ZeroDivisionError), needed_by("x/y", "xland"):
        raise ZeroDivisionError
