"""Several seeds as one program: each is the run that it would be alone, in a folder of its own."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from s5_adapters.cli import main, new_seeds_trainer
from s5_adapters.purejax import NonFiniteError, RunConfig, RunFolderError, RunOptions, TimeLimit, Trainer
from s5_adapters.purejax.claim import FolderTakenError
from s5_adapters.purejax.logging import read_log
from s5_adapters.purejax.progress import Plain
from s5_adapters.purejax.seeds import SeedsTrainer
from tests.purejax import environments  # noqa: F401  registers
from tests.purejax.helpers import small_config
from tests.purejax.test_devices import on_eight_devices
from tests.purejax.test_faults import At, lose_power

OPTIONS = RunOptions(chunk_updates=2, checkpoint_every=4, evaluate_every=4, evaluation_episodes=2)


def test_two_seeds_on_two_devices_are_two_runs_and_go_on_together(tmp_path):
    found = on_eight_devices("seeds", str(tmp_path))
    assert found["begun"] == 3
    assert found["difference"] < 1e-5
    assert found["updates"] == [10, 10]
    assert found["folders"] == ["checkpoints", "config.json", "log.jsonl", "tensorboard"]


def test_seeds_that_share_a_device_agree_with_runs_of_their_own(tmp_path):
    folders = [tmp_path / "seed0", tmp_path / "seed1", tmp_path / "seed2"]
    together = SeedsTrainer(small_config(), folders, options=OPTIONS)
    together.run()
    assert together.update == 10
    alone = Trainer(small_config(), seed=1, options=RunOptions(chunk_updates=1))
    alone_metrics = alone.run().metrics
    rows = [row for row in read_log(folders[1]) if "policy_loss" in row]
    for name in ("policy_loss", "grad_norm", "param_norm"):
        np.testing.assert_allclose(rows[0][name], alone_metrics[name][0], atol=1e-5, rtol=1e-5)
    assert [row["update"] for row in read_log(folders[2]) if "evaluation_return" in row] == [4, 8]
    resumed = Trainer.resume(folders[1])
    assert resumed.update == 10
    for leaf, own in zip(
        jax.tree.leaves(together.state.params), jax.tree.leaves(resumed.state.params), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(leaf)[1], own)
    with pytest.raises(FolderTakenError, match="not empty"):
        SeedsTrainer(small_config(), folders)


def test_a_seed_that_fails_ends_alone(tmp_path):
    """The bit of one seed's first episode decides whether it meets the reward that is no number."""
    config = small_config(env_id="HiddenBit", env_kwargs={"length": 100, "nan_at": 30})
    trainer = SeedsTrainer(config, [tmp_path / "a", tmp_path / "b"], options=OPTIONS)
    with pytest.raises(NonFiniteError, match="a reward of the rollout is not finite at update 4"):
        trainer.run()  # here all do
    assert [line[:7] for line in trainer.failures] == ["seed 0:", "seed 1:"]
    assert [row["update"] for row in read_log(tmp_path / "a") if "policy_loss" in row] == [1, 2]
    with pytest.raises(ValueError, match=r"^seeds: all have ended early[^\n]* \(seed 1: stopped: [^\n]*$"):
        SeedsTrainer(config, [tmp_path / "a", tmp_path / "b"], options=OPTIONS, goes_on=True)


class FaultAtSix(SeedsTrainer):
    """The second seed has a reward at update 6 that is no number."""

    def _run_chunk(self, length, state):
        state, metrics = super()._run_chunk(length, state)
        place = 5 - self.update
        if 0 <= place < length:
            metrics["fault"] = metrics["fault"].at[1, place].set(1)
        return state, metrics


def test_after_an_interruption_the_others_of_a_seed_that_failed_go_on_with_the_same_bits(tmp_path):
    whole = FaultAtSix(small_config(), [tmp_path / "a0", tmp_path / "a1"], options=OPTIONS)
    whole.run()
    folders = [tmp_path / "b0", tmp_path / "b1"]
    with pytest.raises(RuntimeError, match="the power went"):
        FaultAtSix(small_config(), folders, options=OPTIONS, reporter=At(10, lose_power)).run()
    log = (folders[1] / "log.jsonl").read_bytes()
    assert [row.get("fault", "")[:8] for row in read_log(folders[1])][-2:] == ["", "stopped:"]

    reporter = At(-1, lose_power)
    resumed = SeedsTrainer(small_config(), folders, options=OPTIONS, reporter=reporter, goes_on=True)
    assert resumed.update == 8
    resumed.run()
    (line,) = resumed.failures
    assert line.startswith(
        "seed 1: stopped: RepeatPreviousEasy: a reward of the rollout is not finite at update 6"
    )
    assert reporter.lines == [line]
    for one, other in zip(
        jax.tree.leaves(whole.state.params), jax.tree.leaves(resumed.state.params), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(one)[0], np.asarray(other)[0])
    assert (folders[1] / "log.jsonl").read_bytes() == log
    assert Trainer.resume(folders[1]).run().state.update == 10  # by itself, from its own checkpoint
    assert "fault" not in [*read_log(folders[1])][-1]


def cut(checkpoint: Path) -> None:
    """Cut every file of a checkpoint short."""
    for path in checkpoint.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:10])


def test_a_damaged_checkpoint_sends_all_seeds_back_and_where_none_is_whole_nothing_is_touched(tmp_path):
    """Cut: the newest of one seed, which is set aside; then every one of the other seed."""
    folders = [tmp_path / "seed0", tmp_path / "seed1"]
    SeedsTrainer(small_config(), folders, options=OPTIONS).run()
    cut(folders[1] / "checkpoints" / "10")
    reporter = At(-1, lose_power)
    resumed = SeedsTrainer(small_config(), folders, options=OPTIONS, reporter=reporter, goes_on=True)
    assert resumed.update == 8
    (line,) = (line for line in reporter.lines if "damaged" in line)
    assert line.startswith(f"{folders[1] / 'checkpoints' / '10'}: not a readable checkpoint: ")
    assert line.endswith("set aside as 10.damaged, going on from update 8")
    resumed.run()

    for update in (4, 8, 10):
        cut(folders[0] / "checkpoints" / str(update))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"^\S*seed0/checkpoints/10: not a readable checkpoint: [^\n]*$"):
        SeedsTrainer(small_config(), folders, options=OPTIONS, goes_on=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_skipped_steps_of_seeds_are_told_and_counted(tmp_path):
    config = small_config(
        env_id="Spike", env_kwargs={"length": 100}, normalize_advantages=False, on_nonfinite="skip"
    )
    reporter = At(-1, lose_power)
    trainer = SeedsTrainer(config, [tmp_path / "a", tmp_path / "b"], options=OPTIONS, reporter=reporter)
    trainer.run()
    assert trainer.skipped == 2 * config.gradient_steps
    assert reporter.lines == [
        f"seed {seed}: after update 2: a gradient was not finite, and its step not taken" for seed in (0, 1)
    ]


def test_seeds_are_not_logged_to_weights_and_biases(tmp_path):
    with pytest.raises(ValueError, match="wandb: got True with several seeds, expected False"):
        SeedsTrainer(small_config(), [tmp_path / "a"], options=RunOptions(wandb=True))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("gone", "saved"),
    [
        ("runs", ["runs/seed0-rescued", "runs/seed1-rescued"]),
        ("runs/seed1", ["runs/seed0", "runs/seed1-rescued"]),
    ],
)
def test_where_folders_vanish_every_seed_is_saved(tmp_path, gone, saved):
    folders = [tmp_path / "runs" / "seed0", tmp_path / "runs" / "seed1"]
    reporter = At(6, lambda: shutil.rmtree(tmp_path / gone))
    trainer = SeedsTrainer(small_config(), folders, options=OPTIONS, reporter=reporter)
    with pytest.raises(
        RunFolderError, match=r"^stopped: run folder \S*: it is gone; its state at update 6[^\n]*$"
    ):
        trainer.run()
    assert sorted(tmp_path.glob("runs/*")) == [tmp_path / path for path in saved]
    for path in saved:
        assert Trainer.resume(tmp_path / path).update == 6


def test_seeds_that_are_too_far_apart_do_not_go_on_together(tmp_path):
    folders = [tmp_path / "seed0", tmp_path / "seed1"]
    Trainer(small_config(), seed=0, run_dir=folders[0], options=OPTIONS).run()
    with pytest.raises(
        ValueError, match=r"seeds: \S*seed0 is at update 10, and update 0 is the last of which"
    ):
        SeedsTrainer(small_config(), folders, options=OPTIONS, goes_on=True)
    assert not folders[1].exists()
    assert Trainer.resume(folders[0]).update == 10


def test_the_command_line_makes_a_folder_for_each_seed_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("run.json").write_text(json.dumps(small_config().to_dict() | {"chunk_updates": 5}))
    command = ["train", "--config", "run.json", "--seed", "7", "--seeds", "2", "--quiet"]
    assert main([*command, "--max-time", "1s"]) == 0
    assert "go on with: the same command with --resume auto" in capsys.readouterr().out
    folders = [Path("runs") / f"RepeatPreviousEasy-s5-seed{seed}" for seed in (7, 8)]
    assert [json.loads((folder / "config.json").read_text())["seed"] for folder in folders] == [7, 8]
    assert main([*command, "--resume", "auto"]) == 0
    assert [row["update"] for row in read_log(folders[1])] == list(range(1, 11))
    assert main([*command, "--resume", "auto", "--keep-checkpoints", "2"]) == 0
    assert main([*command, "--resume", "auto", "--gamma", "0.5"]) == 2
    assert "seed7: is not empty" in (err := capsys.readouterr().err)
    assert err.endswith("; its run has another configuration: gamma is 0.99 there and 0.5 here\n")
    assert main([*command, "--devices", "3"]) == 2
    assert "seeds: got 2 on devices=3, expected devices one of 1, 2" in capsys.readouterr().err


@pytest.mark.parametrize(("seeds", "used"), [(5, 1), (6, 3), (8, 4)])
def test_devices_that_have_no_share_of_the_seeds_are_told(tmp_path, monkeypatch, capsys, seeds, used):
    monkeypatch.setattr("s5_adapters.cli.device_count", lambda: 4)
    monkeypatch.setattr("s5_adapters.purejax.seeds.SeedsTrainer", lambda *_, devices, **__: devices)
    assert new_seeds_trainer(RunConfig(small_config()), seeds, None, tmp_path, Plain(), False) == used
    told = f"seeds: {seeds} on {used} of 4 devices, since as many share them equally\n"
    assert capsys.readouterr().out == (told if used < 4 else "")


def test_a_time_limit_saves_every_seed(tmp_path):
    folders = [tmp_path / "seed0", tmp_path / "seed1"]
    options = RunOptions(chunk_updates=2, checkpoint_every=4)
    trainer = SeedsTrainer(small_config(), folders, options=options)
    trainer.run(TimeLimit(0.1))
    assert [sorted(path.name for path in (folder / "checkpoints").iterdir()) for folder in folders] == [
        ["2"],
        ["2"],
    ]
