"""Faults of disks, clocks, environments and numbers: told in one line, and nothing that was kept is lost."""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5_adapters import __main__, cli, load_policy
from s5_adapters.cli import main
from s5_adapters.purejax import (
    NonFiniteError,
    RunFolderError,
    RunOptions,
    TimeLimit,
    Trainer,
    make_train,
    restore_policy,
)
from s5_adapters.purejax.algorithms.algorithm import Algorithm
from s5_adapters.purejax.claim import FolderTakenError
from s5_adapters.purejax.interrupt import parse_duration
from s5_adapters.purejax.logging import read_log
from s5_adapters.purejax.progress import Silent, Status
from s5_adapters.purejax.run_folder import RunConfig, write_config
from tests.purejax import environments  # noqa: F401  registers
from tests.purejax.helpers import assert_same_bits, small_config

SEED = 3
EVERY_TWO = RunOptions(chunk_updates=1, checkpoint_every=2)


@pytest.fixture(scope="module")
def whole() -> Any:
    """The run as one program."""
    return jax.jit(make_train(small_config()))(jax.random.key(SEED))


class At(Silent):
    """Does something when an update is done, once, and keeps the faults that are told."""

    def __init__(self, update: int, do: Callable[[], Any]):
        self.update, self.do, self.lines = update, do, []

    def show(self, status: Status) -> None:
        if status.update == self.update:
            self.update = -1
            self.do()

    def warn(self, text: str) -> None:
        self.lines.append(text)


def lose_power() -> None:
    raise RuntimeError("the power went")


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """The folder of a run that the power left at update 9, with checkpoints at 4, 6 and 8."""
    run_dir = tmp_path / "run"
    trainer = Trainer(
        small_config(), seed=SEED, run_dir=run_dir, options=EVERY_TWO, reporter=At(9, lose_power)
    )
    with pytest.raises(RuntimeError, match="the power went"):
        trainer.run()
    return run_dir


# --- disks ----------------------------------------------------------------------------------------


class SmallDisk:
    """A file system in memory, of a mount namespace of its own, reached through /proc."""

    def __init__(self, folder: Path, size: str):
        program = f"mount -t tmpfs -o size={size} none {folder} && echo mounted && exec sh"
        command = ["unshare", "--mount", "--map-root-user", "sh", "-c", program]
        self._shell = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        if self._read() != "mounted":
            pytest.skip("no file systems can be mounted here")
        self.inside, self.path = folder, Path(f"/proc/{self._shell.pid}/root") / folder.relative_to("/")

    def do(self, command: str) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{command}; echo $?\n")
        self._shell.stdin.flush()
        assert self._read() == "0"

    def close(self) -> None:
        self._shell.kill()
        self._shell.communicate()

    def _read(self) -> str:
        assert self._shell.stdout is not None
        return self._shell.stdout.readline().strip()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of two megabytes."""
    (tmp_path / "disk").mkdir()
    try:
        disk = SmallDisk(tmp_path / "disk", "2m")
    except FileNotFoundError:
        pytest.skip("no unshare here")
    yield disk
    disk.close()


def fill(folder: Path, leave: int) -> None:
    """Write a file that leaves so many bytes of a disk."""
    free = os.statvfs(folder)
    with (folder / "others").open("wb") as file:
        file.write(bytes(max(0, free.f_bavail * free.f_frsize - leave)))


@pytest.mark.parametrize("leave", [0, 64_000])
def test_a_full_disk_stops_the_run_and_keeps_the_last_checkpoint(whole, small_disk, leave):
    """Whether the log's lines still fit or not; with room made, the same command goes on."""
    run_dir = small_disk.path / "run"
    reporter = At(5, lambda: fill(small_disk.path, leave))
    trainer = Trainer(small_config(), seed=SEED, run_dir=run_dir, options=EVERY_TWO, reporter=reporter)
    with pytest.raises(RunFolderError, match=r"No space left on device") as told:
        trainer.run()
    message = str(told.value)
    assert message.startswith(f"stopped: run folder {run_dir}: ")
    assert f"last good checkpoint: {run_dir / 'checkpoints' / '4'}; once it can be written again" in message
    assert "\n" not in message
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == ["2", "4"]
    (small_disk.path / "others").unlink()
    assert_same_bits(Trainer.resume(run_dir).run().state, whole.state)


def test_a_disk_that_becomes_read_only_stops_the_run_and_keeps_the_last_checkpoint(whole, small_disk):
    run_dir = small_disk.path / "run"
    # No disk is made read-only while the log is open: at first its checkpoints' folder alone is.
    checkpoints = small_disk.inside / "run" / "checkpoints"
    protect = f"mount --bind {checkpoints} {checkpoints} && mount -o remount,bind,ro {checkpoints}"
    reporter = At(5, lambda: small_disk.do(protect))
    trainer = Trainer(small_config(), seed=SEED, run_dir=run_dir, options=EVERY_TWO, reporter=reporter)
    with pytest.raises(RunFolderError, match=r"Read-only file system.*last good checkpoint: \S*/4; once"):
        trainer.run()
    small_disk.do(f"umount {checkpoints} && mount -o remount,ro {small_disk.inside}")
    with pytest.raises(OSError, match="Read-only file system"):
        Trainer.resume(run_dir)
    small_disk.do(f"mount -o remount,rw {small_disk.inside}")
    assert_same_bits(Trainer.resume(run_dir).run().state, whole.state)


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_compiled(small_disk, capsys):
    small_disk.do(f"mount -o remount,ro {small_disk.inside}")
    assert main(["train", "--run-dir", str(small_disk.path / "run")]) == 2
    err = capsys.readouterr().err
    assert "Read-only file system" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "options",
    [EVERY_TWO, RunOptions(chunk_updates=1, evaluate_every=5, evaluation_episodes=2, keep_best=True)],
)
def test_a_run_whose_folder_vanishes_is_saved_beside_it_and_takes_no_other_s_place(whole, tmp_path, options):
    """Noticed after a chunk, or where the best policy cannot be written."""
    run_dir, other = tmp_path / "run", tmp_path / "run-rescued"
    write_config(other, RunConfig(small_config()))
    (other / "checkpoints" / "5").mkdir(parents=True)
    before = (other / "config.json").read_bytes()
    reporter = At(5, lambda: shutil.rmtree(run_dir))
    trainer = Trainer(small_config(), seed=SEED, run_dir=run_dir, options=options, reporter=reporter)
    with pytest.raises(
        RunFolderError, match=r"run: it is gone; its state at update 5.*--resume \S*run-rescued-2$"
    ):
        trainer.run()
    assert not run_dir.exists()
    assert_same_bits(Trainer.resume(tmp_path / "run-rescued-2").run().state, whole.state)
    assert (other / "config.json").read_bytes() == before
    assert list((other / "checkpoints" / "5").iterdir()) == []


# --- checkpoints ----------------------------------------------------------------------------------


def cut(path: Path, draw: random.Random) -> None:
    with path.open("r+b") as file:
        file.truncate(draw.randrange(path.stat().st_size))


def flip(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def files_of(checkpoint: Path) -> list[Path]:
    """The files of a checkpoint that hold anything, largest first."""
    files = [path for path in checkpoint.rglob("*") if path.is_file() and path.stat().st_size]
    return sorted(files, key=lambda path: -path.stat().st_size)


@pytest.mark.parametrize("damage", [cut, flip])
def test_the_newest_whole_checkpoint_is_taken_and_it_is_said(whole, stopped, damage):
    for path in files_of(stopped / "checkpoints" / "8")[:6]:
        damage(path, random.Random(1))
    reporter = At(-1, lambda: None)
    resumed = Trainer.resume(stopped, reporter=reporter)
    assert resumed.update == 6
    (line,) = (line for line in reporter.lines if "set aside" in line)
    assert "checkpoints/8: not a readable checkpoint: " in line
    assert line.endswith("set aside as 8.damaged, going on from update 6")
    assert_same_bits(resumed.run().state, whole.state)
    assert [row["update"] for row in read_log(stopped)] == list(range(1, 11))
    assert {"8", "8.damaged", "10"} < {path.name for path in (stopped / "checkpoints").iterdir()}


@pytest.mark.parametrize(
    "command",
    [["evaluate", "--episodes", "1"], ["export", "-o", "{}/policy.safetensors"]],
    ids=lambda c: c[0],
)
def test_who_only_reads_passes_over_what_is_damaged_and_changes_nothing(stopped, tmp_path, capsys, command):
    for path in files_of(stopped / "checkpoints" / "8"):
        cut(path, random.Random(0))
    before = files_of(stopped)
    arguments = [word.format(tmp_path) for word in command]
    assert main([arguments[0], str(stopped), *arguments[1:]]) == 0
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert "checkpoints/8: not a readable checkpoint: " in line
    assert line.endswith("; passed over, taking the one after update 6")
    assert files_of(stopped) == before
    if command[0] == "export":
        assert load_policy(tmp_path / "policy.safetensors").training["updates"] == 6
    else:
        assert "after 6 of 10 updates" in told.out
    assert main([arguments[0], str(stopped), *arguments[1:], "--checkpoint", "8"]) == 2
    with pytest.warns(UserWarning, match="passed over, taking the one after update 6"):
        assert restore_policy(stopped).update == 6


@pytest.mark.parametrize("options", [[], ["--quiet"]])
def test_a_fault_is_told_on_standard_error_even_where_progress_is_not_shown(stopped, capsys, options):
    cut(files_of(stopped / "checkpoints" / "8")[0], random.Random(1))
    assert main(["train", "--resume", str(stopped), *options]) == 0
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert "set aside as 8.damaged, going on from update 6\n" in err
    assert "damaged" not in out
    assert ("compiling" in out) == (not options)


def test_where_no_checkpoint_is_whole_the_newest_one_s_fault_is_told(stopped):
    for update in (4, 6, 8):
        for path in files_of(stopped / "checkpoints" / str(update)):
            cut(path, random.Random(0))
    with pytest.raises(ValueError, match=r"^\S*checkpoints/8: not a readable checkpoint: [^\n]*$"):
        Trainer.resume(stopped)
    assert (stopped / "checkpoints" / "8").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_file_cut_or_flipped_anywhere_changes_no_bit(whole, stopped, seed):
    """Whatever is hit, either nothing that matters was, or it is noticed and the run goes on from before."""
    draw = random.Random(seed)
    damage = draw.choice([cut, flip])
    damage(draw.choice(files_of(stopped / "checkpoints" / "8")), draw)
    assert_same_bits(Trainer.resume(stopped).run().state, whole.state)


# --- what is beside the checkpoints --------------------------------------------------------------


@pytest.mark.parametrize("damage", ["missing", "a line", "bytes"])
def test_a_log_that_is_lost_or_damaged_costs_no_run(whole, stopped, damage):
    log = stopped / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    if damage == "missing":
        log.unlink()
    else:
        lines[2] = {"a line": b"hello\n", "bytes": b'\xff{"update": 3}\n'}[damage]
        log.write_bytes(b"".join(lines))
    reporter = At(-1, lose_power)
    assert restore_policy(stopped).update == 8
    resumed = Trainer.resume(stopped, reporter=reporter)
    (line,) = reporter.lines
    assert line.startswith(
        f"{stopped}: no log.jsonl" if damage == "missing" else f"{log}:3: not a row of a log"
    )
    assert line.endswith("; going on from update 8 with the rows that can be read")
    assert_same_bits(resumed.run().state, whole.state)
    found = [row["update"] for row in read_log(stopped)]
    assert found == ([9, 10] if damage == "missing" else [1, 2, *range(4, 11)])
    if damage != "missing":
        assert (stopped / "log.jsonl.damaged").read_bytes() == b"".join(lines)


@pytest.mark.parametrize("content", ["", '{"env_id": "Repeat', "[]"])
@pytest.mark.parametrize("given", [True, False])
def test_a_damaged_configuration_is_named_and_nothing_begins_anew(
    stopped, monkeypatch, capsys, content, given
):
    """Told to go on where it was begun, with the folder or by its name."""
    monkeypatch.chdir(stopped.parent)
    run_dir = stopped if given else Path("runs") / "RepeatPreviousEasy-s5-seed0"
    if not given:
        run_dir.parent.mkdir()
        stopped.rename(run_dir)
    (run_dir / "config.json").write_text(content)
    before = sorted(Path().rglob("*"))
    for arguments in (["auto", *(["--run-dir", str(run_dir)] if given else [])], [str(run_dir)]):
        assert main(["train", "--resume", *arguments]) == 2
        out, err = capsys.readouterr()
        assert err.startswith(f"s5-adapters: {run_dir / 'config.json'}: ")
        assert err.count("\n") == 1
        assert out == ""
    assert sorted(Path().rglob("*")) == before


# --- signals and time -----------------------------------------------------------------------------


def test_sigusr1_saves_and_the_run_goes_on(whole, tmp_path):
    run_dir = tmp_path / "run"
    options = RunOptions(chunk_updates=1, checkpoint_every=100)
    reporter = At(3, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    handler = signal.getsignal(signal.SIGUSR1)
    trainer = Trainer(small_config(), seed=SEED, run_dir=run_dir, options=options, reporter=reporter)
    assert_same_bits(trainer.run().state, whole.state)
    assert trainer.checkpoints.updates() == [3, 10]
    assert signal.getsignal(signal.SIGUSR1) == handler


def test_sigusr1_while_a_run_is_built_saves_after_its_first_chunk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run.json").write_text(json.dumps(small_config().to_dict() | {"checkpoint_every": 100}))
    compile_ = Trainer._compile

    def ask_and_compile(trainer: Trainer) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        compile_(trainer)

    monkeypatch.setattr(Trainer, "_compile", ask_and_compile)
    handler = signal.getsignal(signal.SIGUSR1)
    command = ["train", "--config", "run.json", "--run-dir", "run", "--quiet", "--chunk-updates", "3"]
    assert main(command) == 0
    assert {path.name for path in Path("run/checkpoints").iterdir()} == {"3", "10"}
    assert signal.getsignal(signal.SIGUSR1) == handler


def test_a_run_saves_and_ends_before_its_time_is_up(whole, tmp_path):
    options = RunOptions(chunk_updates=3, checkpoint_every=100)
    trainer = Trainer(small_config(), seed=SEED, run_dir=tmp_path / "run", options=options)
    result = trainer.run(TimeLimit(0.5))  # less than what ending takes: one chunk is done all the same
    assert trainer.update == 3
    assert len(result.metrics["policy_loss"]) == 3
    resumed = Trainer.resume(tmp_path / "run")
    assert resumed.update == 3
    assert_same_bits(resumed.run(TimeLimit(3600)).state, whole.state)


def test_a_time_limit_leaves_room_for_the_slowest_chunk_and_checkpoint():
    limit = TimeLimit(100)
    assert not limit.is_near()
    limit.note(chunk=40)
    limit.note(chunk=1, save=20)
    assert not limit.is_near()  # 1.5 * 60 and a second
    limit.note(save=26.1)
    assert limit.is_near()


def test_the_time_of_a_command_counts_from_its_beginning(monkeypatch):
    """Before it imports JAX and waits for other processes."""
    assert TimeLimit(100, time.monotonic() - 99.5).is_near()
    began = []
    monkeypatch.setattr(cli.Train, "began", None)
    monkeypatch.setattr(cli, "main", lambda: began.append(cli.Train.began) or 0)
    monkeypatch.setattr(sys, "argv", ["s5-adapters", "train"])
    assert __main__.main() == 0
    assert began == [__main__.BEGAN]


@pytest.mark.parametrize(
    ("text", "seconds"), [("3h50m", 13800), ("45m", 2700), ("90s", 90), ("1d12h", 129600), ("1h1s", 3601)]
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "3", "h", "50m3h", "-1h", "0s", "3 h"])
def test_what_is_no_duration_is_refused_in_one_line(text):
    with pytest.raises(ValueError, match=r"^max-time: got [^\n]* expected a duration such as 3h50m"):
        parse_duration(text)


def test_a_clock_that_jumps_changes_nothing(whole, tmp_path, monkeypatch):
    """The wall clock goes a year back and forth; speeds, limits and the newest checkpoint do not follow."""
    real, jumps = time.time, iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: real() + (-1) ** next(jumps) * 3e7)
    run_dir = tmp_path / "run"
    trainer = Trainer(
        small_config(), seed=SEED, run_dir=run_dir, options=EVERY_TWO, reporter=At(5, lose_power)
    )
    with pytest.raises(RuntimeError, match="the power went"):
        trainer.run(TimeLimit(3600))
    resumed = Trainer.resume(run_dir)
    assert resumed.update == 4
    assert_same_bits(resumed.run(TimeLimit(3600)).state, whole.state)
    seconds = [row["seconds"] for row in read_log(run_dir)]
    assert seconds == sorted(seconds)
    assert seconds[-1] < 600
    assert len(list((run_dir / "tensorboard").iterdir())) == 2


def test_the_same_command_begins_and_goes_on(tmp_path, monkeypatch, capsys):
    """A scheduler gives it again: killed in between, done already, and with another configuration."""
    monkeypatch.chdir(tmp_path)
    small = small_config().to_dict()
    options = ["--num-envs", "4", "--num-steps", "8", "--num-minibatches", "2", "--num-epochs", "2"]
    options += ["--total-steps", "320", "--encoder", "8", "--actor-torso", "8", "--critic-torso", "8"]
    options += ["--memory-config", *(f"{name}={value}" for name, value in small["memory_config"].items())]
    command = ["train", *options, "--resume", "auto", "--quiet", "--chunk-updates", "5"]
    command += ["--checkpoint-every", "5"]
    assert main([*command, "--max-time", "1s"]) == 0
    out = capsys.readouterr().out
    run_dir = Path("runs") / "RepeatPreviousEasy-s5-seed0"
    assert "stopped before the limit of 1 s after update 5 of 10; saved; go on with: s5-adapters train" in out
    assert f"--resume {run_dir}" in out
    assert main([*command, "--evaluate-every", "10", "--keep-best"]) == 0  # nothing that is learned changes
    assert "trained 320 steps" in capsys.readouterr().out
    assert (run_dir / "best.safetensors").is_file()
    assert [row["update"] for row in read_log(run_dir) if "seconds" in row] == list(range(1, 11))
    assert main(command) == 0
    assert [path.name for path in Path("runs").iterdir()] == [run_dir.name]
    assert main([*command, "--run-dir", str(run_dir), "--gamma", "0.5"]) == 2
    assert "another configuration: gamma is 0.99 there and 0.5 here" in capsys.readouterr().err


def test_a_second_run_in_one_folder_is_refused(tmp_path):
    trainer = Trainer(small_config(), run_dir=tmp_path / "run")
    with pytest.raises(FolderTakenError, match="not empty"):
        Trainer(small_config(), run_dir=tmp_path / "run")
    assert trainer.run().state.update == 10


# --- numbers --------------------------------------------------------------------------------------


def test_an_environment_that_gives_no_number_is_named_with_its_step(tmp_path):
    config = small_config(env_id="HiddenBit", env_kwargs={"length": 100, "nan_at": 30})
    with pytest.raises(
        NonFiniteError, match=r"a reward .* update 4 of 10 .*, environment 0 at its step 30; no"
    ):
        Trainer(config).run()


@pytest.mark.parametrize(
    ("length", "step", "options"),
    [
        (30, 30, {}),
        (30, 30, {"on_nonfinite": "skip"}),
        (100, 32, {}),
        (100, 32, {"time_limit": "terminal"}),
    ],
)
def test_an_observation_that_is_valued_alone_is_named_with_its_step(length, step, options):
    """The last of an episode that is truncated, and the one after a rollout's last step."""
    config = small_config(env_id="HiddenBit", env_kwargs={"length": length, "obs_nan_at": step}, **options)
    with pytest.raises(
        NonFiniteError, match=rf"an observation .* update 4 of 10 .*, environment 0 at its step {step}; no"
    ):
        Trainer(config).run()


def test_a_last_observation_that_nobody_needs_is_no_fault():
    """Where a time limit ends an episode for good, the last observation has no value."""
    kwargs = {"length": 30, "obs_nan_at": 30}
    Trainer(small_config(env_id="HiddenBit", env_kwargs=kwargs, time_limit="terminal")).run()


def test_statistics_that_explode_are_noticed_though_what_the_network_sees_is_finite():
    """Observations of 1e20 have an infinite variance: normalised, they would all be zero from then on."""
    config = small_config(env_id="HiddenBit", env_kwargs={"scale": 1e10}, normalize_observations=True)
    with pytest.raises(NonFiniteError, match=r"a running mean or variance .* at update 1 of 10"):
        Trainer(config).run()


def test_a_gradient_that_is_no_number_stops_the_run_or_is_skipped_and_counted(tmp_path):
    config = small_config(env_id="Spike", env_kwargs={"length": 100}, normalize_advantages=False)
    with pytest.raises(NonFiniteError, match=r"value loss in epoch 1, minibatch 1 is not finite at update 4"):
        Trainer(config).run()
    reporter = At(-1, lambda: None)
    skipping = dataclasses.replace(config, on_nonfinite="skip")
    trainer = Trainer(
        skipping, run_dir=tmp_path / "run", options=RunOptions(chunk_updates=1), reporter=reporter
    )
    trainer.run()
    assert trainer.skipped == config.gradient_steps
    assert sum("gradient was not finite" in line for line in reporter.lines) == 1
    rows = list(read_log(tmp_path / "run"))
    assert [row["skipped"] for row in rows] == [0, 0, 0, config.gradient_steps, 0, 0, 0, 0, 0, 0]
    assert [row["update"] for row in rows if row["value_loss"] is None] == [4]
    assert rows[3]["param_norm"] == rows[2]["param_norm"]
    assert Trainer.resume(tmp_path / "run").skipped == config.gradient_steps


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_a_skipped_step_changes_nothing_and_another_is_the_same(bad):
    stopping, skipping = small_config(), small_config(on_nonfinite="skip")
    params = {"a": jnp.arange(3.0), "b": jnp.float32(2)}
    grads = {"a": jnp.ones(3).at[1].set(bad), "b": jnp.float32(1)}
    opt_state = stopping.make_optimizer().init(params)

    def descend(config: Algorithm) -> Any:
        return config.descend(params, opt_state, grads, jnp.float32(0.1))

    assert_same_bits(descend(skipping), descend(stopping) if bad == 0 else (params, opt_state))
