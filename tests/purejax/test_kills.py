"""SIGKILL at random moments, the same command each time: the bits of a run that nobody disturbed."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from s5_adapters.purejax import RunConfig
from s5_adapters.purejax.checkpoint import Checkpoints
from s5_adapters.purejax.logging import read_log
from s5_adapters.purejax.training import Programs
from tests.compilation import environment_of, quick_environment
from tests.documents import CHECKOUT
from tests.purejax.helpers import assert_same_bits, small_config
from tests.purejax.test_faults import cut, files_of, flip

UPDATES = 400
CONFIG = small_config(num_envs=8, total_steps=8 * 8 * UPDATES, normalize_observations=True)


class Command:
    """The command that a scheduler gives again and again."""

    def __init__(self, folder: Path, devices: int, environment: dict[str, str]):
        self.file = folder / "run.json"
        run = RunConfig(CONFIG, 3, devices=devices).to_dict()
        self.file.write_text(json.dumps(run | {"checkpoint_every": 20, "chunk_updates": 5}))
        self.environment = environment

    def start(self, run_dir: Path) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "s5_adapters.cli", "train", "--config", str(self.file)]
        command += ["--run-dir", str(run_dir), "--resume", "auto", "--quiet"]
        return subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, run_dir: Path) -> None:
        process = self.start(run_dir)
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors


def kill(process: "subprocess.Popen[str]", run_dir: Path, seconds: float, least_checkpoints: int) -> bool:
    """Wait until it trains and has some checkpoints, then so long; returns whether it was still at work."""
    before = size_of_log(run_dir)
    while process.poll() is None and (
        size_of_log(run_dir) == before or len(updates_kept(run_dir)) < least_checkpoints
    ):
        time.sleep(0.01)
    return kill_after(process, seconds)


def kill_after(process: "subprocess.Popen[str]", seconds: float) -> bool:
    """Wait so long, whatever it does; returns whether it was still at work."""
    time.sleep(seconds)
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


def updates_kept(run_dir: Path) -> list[int]:
    return Checkpoints(run_dir / "checkpoints").updates() if (run_dir / "checkpoints").is_dir() else []


def size_of_log(run_dir: Path) -> tuple[int, float]:
    log = run_dir / "log.jsonl"
    return (log.stat().st_size, log.stat().st_mtime) if log.exists() else (0, 0.0)


def outcome(run_dir: Path) -> tuple[Any, list[dict[str, Any]]]:
    """The last state, and the log without times."""
    like = jax.eval_shape(Programs.of(CONFIG).init_state, jax.random.key(0), np.float32(0))
    state = Checkpoints(run_dir / "checkpoints").restore(like, UPDATES)
    times = ("seconds", "steps_per_second")
    return state, [
        {name: value for name, value in row.items() if name not in times} for row in read_log(run_dir)
    ]


@pytest.mark.parametrize(
    ("devices", "kills", "damages"),
    [
        (1, 1, True),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, 20, False), (1, 20, True))),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((4, 20, False), (4, 20, True))),
    ],
)
def test_a_killed_run_goes_on_with_the_same_bits(tmp_path, devices, kills, damages):
    """Every fourth kill is at any moment from the start on: while importing, compiling, restoring.

    With ``damages`` a file of the newest checkpoint is cut or flipped before each resumption too.
    """
    draw = random.Random(kills + devices)
    command = Command(tmp_path, devices, environment_of(devices) if kills > 1 else quick_environment(devices))
    began = time.monotonic()
    command.finish(tmp_path / "whole")
    whole_seconds = time.monotonic() - began
    training_seconds = list(read_log(tmp_path / "whole"))[-1]["seconds"]
    run_dir, hits, damaged = tmp_path / "run", 0, 0
    for i in range(kills):
        process = command.start(run_dir)
        if i % 4 == 3:
            hits += kill_after(process, draw.uniform(0, whole_seconds - training_seconds))
        else:  # all of them together take less than the training
            hits += kill(process, run_dir, draw.uniform(0, training_seconds / kills), 1 + damages)
        if damages and len(updates_kept(run_dir)) > 1:
            newest = Checkpoints(run_dir / "checkpoints").path(updates_kept(run_dir)[-1])
            draw.choice([cut, flip])(draw.choice(files_of(newest)), draw)
            damaged += 1
    assert hits > kills / 2
    assert not damages or damaged > kills / 2
    command.finish(run_dir)
    (state, rows), (wanted, wanted_rows) = outcome(run_dir), outcome(tmp_path / "whole")
    assert_same_bits(state, wanted)
    assert rows == wanted_rows
