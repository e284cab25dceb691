"""Two real processes of four virtual devices train one run; where one dies the other ends, and both go on."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from s5_adapters.purejax import RunConfig, Trainer, restore_policy
from s5_adapters.purejax.checkpoint import Checkpoints
from s5_adapters.purejax.one_line import GONE, without_noise
from s5_adapters.purejax.processes import Decision, agree, are_several, first_number, from_first, is_first
from s5_adapters.purejax.run_folder import CONFIG_NAME
from s5_adapters.purejax.split import Split
from s5_adapters.purejax.split_programs import SplitPrograms
from tests.compilation import quick_environment
from tests.documents import CHECKOUT
from tests.purejax.helpers import same_bits, small_config

CONFIG = small_config(
    num_envs=16, num_steps=8, total_steps=16 * 8 * 10, normalize_observations=True, normalize_rewards=True
)
SEED = 3


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return int(listening.getsockname()[1])


class TwoProcesses:
    """``train --distributed`` twice, on loopback."""

    def __init__(self, config_file: Path, run_dir: Path, *options: str, devices: int = 4):
        environment = quick_environment(devices)
        address = f"localhost:{free_port()}"
        self.processes = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "s5_adapters", "train", "--config", str(config_file)),
                    *(
                        "--distributed",
                        "--coordinator",
                        address,
                        "--num-processes",
                        "2",
                        "--process-id",
                        str(i),
                    ),
                    *("--run-dir", str(run_dir), "--resume", "auto", "--chunk-updates", "1", *options),
                ],
                cwd=CHECKOUT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in range(2)
        ]

    def wait_for(self, path: Path) -> None:
        """Wait until a file is there."""
        while not path.exists():
            assert all(process.poll() is None for process in self.processes)
            time.sleep(0.02)

    def results(self, timeout: float = 300) -> list[tuple[int, str, str]]:
        """Exit code, output and errors of each."""
        try:
            ended = [process.communicate(timeout=timeout) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
        return [(p.returncode, out, err) for p, (out, err) in zip(self.processes, ended, strict=True)]


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.json"
    config = RunConfig(CONFIG, SEED).to_dict()
    path.write_text(json.dumps(config | {"checkpoint_every": 2}))
    return path


def test_the_end_of_the_coordinator_is_one_line():
    told = [
        "compiling ...",
        "W1127 15:37:52.207748   25923 preemption_sync_manager.cc:147] Failed to retrieve preemption notice",
        "Additional GRPC error information from remote target coordination_service while calling",
        ":UNKNOWN:Error received from peer",
        "F1127 15:37:52 25923 client.h:80] Terminating process because the JAX distributed service detected "
        "fatal errors. This most likely indicates that another task died",
        "*** Check failure stack trace: ***",
        "    @     0x7fc674040634  absl::lts_20260107::log_internal::LogMessage::SendToLog()",
    ]
    assert list(without_noise(told)) == ["compiling ...", f"{GONE}\n"]
    assert list(without_noise([f"{GONE} (a socket)\n", *told[4:]])) == [f"{GONE} (a socket)\n"]
    assert list(without_noise(["Traceback\n", "  File\n"])) == ["Traceback\n", "  File\n"]


def state_in(run_dir: Path, update: int) -> Any:
    like = SplitPrograms.of(CONFIG, Split(1, 8)).init_state
    shapes = jax.eval_shape(like, jax.random.key(0), np.float32(0))
    return Checkpoints(run_dir / "checkpoints").restore(shapes, update)


@pytest.fixture
def whole(tmp_path: Path, config_file: Path) -> Path:
    """The folder of a run of two processes that nobody disturbs."""
    run_dir = tmp_path / "whole"
    for code, _, err in TwoProcesses(config_file, run_dir).results():
        assert code == 0, err
    return run_dir


def test_one_process_alone_decides_and_reads_for_itself():
    mine = Decision(3, 0, True, False)
    assert (agree(mine), from_first("state", None), is_first(), are_several()) == (mine, "state", True, False)
    assert first_number(3) == 3


def test_a_process_that_did_not_see_the_folder_splits_as_the_first_one_says(monkeypatch):
    """It was begun on four devices, which this process, told to begin or go on on one, does not know."""
    monkeypatch.setattr("s5_adapters.purejax.trainer.first_number", lambda number: 4)
    monkeypatch.setattr(Trainer, "_compile", lambda self: None)
    assert Trainer(CONFIG, devices=1).split == Split(1, 4)


def test_two_processes_of_four_devices_learn_what_one_device_does(whole):
    """The first process alone leaves files; one device that shuffles in eight groups has its parameters."""
    programs = SplitPrograms.of(CONFIG, Split(1, 8))
    alone = programs.init_state(jax.random.key(SEED), np.float32(CONFIG.learning_rate))
    alone, _ = programs.run_chunk(alone, np.int32(10), buffer_size=10)
    together = state_in(whole, 10)
    for one, other in zip(jax.tree.leaves(alone.params), jax.tree.leaves(together.params), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert json.loads((whole / CONFIG_NAME).read_text())["devices"] == 8
    rows = (whole / "log.jsonl").read_text().splitlines()
    assert [json.loads(row)["update"] for row in rows] == list(range(1, 11))
    assert restore_policy(whole).update == 10


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_ends_the_other_with_one_line_and_both_go_on(
    tmp_path, whole, config_file, victim
):
    run_dir = tmp_path / "run"
    two = TwoProcesses(config_file, run_dir)
    two.wait_for(run_dir / "checkpoints" / "4")
    two.processes[victim].kill()
    killed = time.monotonic()
    code, _, err = two.results(timeout=60)[1 - victim]
    assert time.monotonic() - killed < 60
    assert code != 0
    (line,) = (line for line in err.splitlines() if line.startswith("s5-adapters: "))
    assert line.startswith(GONE)
    for code, _, err in TwoProcesses(config_file, run_dir).results():
        assert code == 0, err
    assert same_bits(state_in(run_dir, 10), state_in(whole, 10))


@pytest.mark.slow
def test_two_processes_go_on_on_fewer_devices_with_the_shuffles_of_those_begun_on(
    tmp_path, whole, config_file
):
    """Begun on eight, one process knows; both then draw minibatches in eight groups on four."""
    run_dir = tmp_path / "run"
    for code, _, err in TwoProcesses(config_file, run_dir, "--max-time", "1s").results():
        assert code == 0, err
    assert Checkpoints(run_dir / "checkpoints").updates() == [1]
    for code, _, err in TwoProcesses(config_file, run_dir, devices=2).results():
        assert code == 0, err
    one, other = state_in(run_dir, 10).params, state_in(whole, 10).params
    for leaf, same in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(leaf, same, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("receiver", [0, 1])
def test_a_signal_to_one_process_saves_and_stops_both_at_the_same_update(
    tmp_path, whole, config_file, receiver
):
    run_dir = tmp_path / "run"
    two = TwoProcesses(config_file, run_dir)
    two.wait_for(run_dir / "checkpoints" / "2")
    two.processes[receiver].send_signal(signal.SIGTERM)
    (first, _, told), (second, _, silent) = two.results(timeout=60)
    assert (first, second) == (128 + signal.SIGTERM, 128 + signal.SIGTERM)
    (line,) = (line for line in told.splitlines() if line.startswith("s5-adapters: "))
    stopped = Checkpoints(run_dir / "checkpoints").updates()[-1]
    assert line.startswith(f"s5-adapters: stopped by SIGTERM after update {stopped} of 10; saved to ")
    assert "s5-adapters: " not in silent
    for code, _, err in TwoProcesses(config_file, run_dir).results():
        assert code == 0, err
    assert same_bits(state_in(run_dir, 10), state_in(whole, 10))
