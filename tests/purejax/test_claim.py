"""One run owns a folder: whoever comes second is refused and harms nothing, and nothing half-made stays."""

import subprocess
import sys
from pathlib import Path

import pytest

from s5_adapters import demo
from s5_adapters.cli import main, new_trainer
from s5_adapters.purejax import RunConfig, RunOptions, Trainer, restore_policy
from s5_adapters.purejax.claim import FolderTakenError, claim_existing, claim_new
from s5_adapters.purejax.progress import Silent
from tests.purejax import environments  # noqa: F401  registers
from tests.purejax.helpers import assert_same_bits, small_config

RUN = RunConfig(small_config())
OTHER = RunConfig(small_config(gamma=0.5))

_HOLD = """
import sys
from pathlib import Path
from s5_adapters.purejax.claim import claim_new
from s5_adapters.purejax.run_folder import RunConfig
claim = claim_new(Path(sys.argv[1]), RunConfig())
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def uncompiled(monkeypatch):
    """Trainers that are built without a first state and a program."""
    monkeypatch.setattr(Trainer, "_first_state", lambda self: None)
    monkeypatch.setattr(Trainer, "_compile", lambda self: None)


def test_another_process_is_kept_out_until_the_first_one_is_killed(tmp_path):
    run_dir = tmp_path / "run"
    command = [sys.executable, "-c", _HOLD, str(run_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        before = (run_dir / "config.json").read_text()
        for claim in (lambda: claim_new(run_dir, RunConfig()), lambda: claim_existing(run_dir)):
            with pytest.raises(
                FolderTakenError, match=rf"^run folder {run_dir}: a run is going on in it"
            ) as taken:
                claim()
            assert taken.value.owner == RunConfig().completed()
        assert main(["train", "--resume", str(run_dir)]) == 2
        assert main(["train", "--run-dir", str(run_dir)]) == 2
        assert [path.name for path in run_dir.iterdir()] == ["config.json"]
        assert (run_dir / "config.json").read_text() == before
        holder.kill()
    claim_existing(run_dir).release()
    claim_new(run_dir, RunConfig()).release()  # killed before it trained: the same run may begin again
    with pytest.raises(FolderTakenError, match="is not empty"):
        claim_new(run_dir, OTHER)
    assert (run_dir / "config.json").read_text() == before


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory"), ValueError("no")])
@pytest.mark.parametrize("empty_before", [True, False])
def test_what_fails_before_it_trains_leaves_no_folder(tmp_path, monkeypatch, uncompiled, error, empty_before):
    run_dir = tmp_path / "runs" / "run"
    if empty_before:
        run_dir.mkdir(parents=True)

    def fail(self):
        assert (run_dir / "config.json").is_file()
        raise error

    monkeypatch.setattr(Trainer, "_compile", fail)
    with pytest.raises(type(error)):
        Trainer(RUN.training, run_dir=run_dir)
    assert list(tmp_path.rglob("*")) == ([run_dir.parent, run_dir] if empty_before else [])
    monkeypatch.setattr(Trainer, "_compile", lambda self: None)
    assert Trainer(RUN.training, run_dir=run_dir).run_dir == run_dir


def test_what_somebody_put_there_meanwhile_stays(tmp_path):
    claim = claim_new(tmp_path / "runs" / "run", RUN)
    (tmp_path / "runs" / "notes.txt").write_text("...")
    claim.abandon()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["notes.txt"]


def test_a_file_and_a_folder_with_contents_are_left_alone(tmp_path):
    (tmp_path / "file").write_text("...")
    with pytest.raises(FolderTakenError, match="is a file"):
        claim_new(tmp_path / "file", RUN)
    with pytest.raises(FolderTakenError, match="is not empty"):
        claim_new(tmp_path, RUN)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_trainer_that_goes_away_lets_go(tmp_path, uncompiled):
    trainer = Trainer(RUN.training, run_dir=tmp_path / "run")
    with pytest.raises(FolderTakenError, match="is not empty"):
        Trainer(RUN.training, run_dir=tmp_path / "run")
    del trainer
    claim_new(tmp_path / "run", RUN).release()


def test_only_one_trainer_of_a_process_runs_in_a_folder(tmp_path):
    first = claim_new(tmp_path / "run", RUN)
    second = claim_existing(tmp_path / "run")
    with first.running():
        with pytest.raises(FolderTakenError, match="going on"), second.running():
            pass
        with pytest.raises(FolderTakenError, match="going on"):
            claim_existing(tmp_path / "run")
    with second.running():
        pass
    claim_existing(tmp_path / "run").release()


def test_a_trainer_that_was_left_behind_does_not_run_again(tmp_path, uncompiled):
    trainer = Trainer(RUN.training, run_dir=tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "7").mkdir(parents=True)
    with pytest.raises(FolderTakenError, match="gone on to update 7 without this trainer, which is at 0"):
        trainer.run()
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_without_locks_a_folder_is_still_made_by_one_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("s5_adapters.purejax.claim.fcntl", None)
    claim_new(tmp_path / "run", RUN).release()
    with pytest.raises(FolderTakenError, match="is not empty"):
        claim_new(tmp_path / "run", RUN)
    claim_existing(tmp_path / "run").release()


def test_other_configurations_get_folders_of_their_own(tmp_path, monkeypatch, uncompiled):
    monkeypatch.chdir(tmp_path)
    trainers = [new_trainer(run, None, Silent()) for run in (RUN, OTHER)]
    assert [str(t.run_dir) for t in trainers] == [
        str(Path("runs") / name) for name in ("RepeatPreviousEasy-s5-seed0", "RepeatPreviousEasy-s5-seed0-2")
    ]
    for run in (RUN, OTHER):
        with pytest.raises(FolderTakenError):
            new_trainer(run, None, Silent())
    with pytest.raises(FolderTakenError):
        new_trainer(OTHER, trainers[0].run_dir, Silent())
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_going_on_takes_the_run_that_learns_the_same_however_it_is_watched(
    tmp_path, monkeypatch, uncompiled, capsys
):
    """Another configuration begins a run of its own under the next name, and that is said."""
    monkeypatch.chdir(tmp_path)
    new_trainer(RUN, None, Silent())
    watched = RunConfig(
        RUN.training, options=RunOptions(evaluate_every=5, keep_best=True, checkpoint_every=3)
    )
    for run_dir in (None, tmp_path / "runs" / "RepeatPreviousEasy-s5-seed0"):
        trainer = new_trainer(watched, run_dir, Silent(), goes_on=True)
        assert trainer.options == watched.options
    with pytest.raises(FolderTakenError, match="is not empty; resume the run in it"):
        new_trainer(watched, None, Silent())
    assert capsys.readouterr().err == ""
    for is_new in (True, False):
        other = new_trainer(OTHER, None, Silent(), goes_on=True)
        assert str(other.run_dir) == "runs/RepeatPreviousEasy-s5-seed0-2"
        assert capsys.readouterr().err == is_new * (
            "runs/RepeatPreviousEasy-s5-seed0: its run has another configuration: gamma is 0.99 there and "
            "0.5 here; beginning another in runs/RepeatPreviousEasy-s5-seed0-2\n"
        )
    with pytest.raises(
        ValueError, match=r"^run folder \S*seed0: is not empty.*: gamma is 0\.99 there and 0\.5"
    ):
        new_trainer(OTHER, Path("runs/RepeatPreviousEasy-s5-seed0"), Silent(), goes_on=True)
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_a_second_demo_leaves_the_first_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    running = claim_new(demo.FOLDER / "s5", RUN)
    with running.running():
        assert demo.main([]) == 2
        assert (demo.FOLDER / "s5" / "config.json").is_file()
    assert "a run is going on in it" in capsys.readouterr().err


def test_a_live_run_may_be_read(tmp_path):
    config = small_config(env_id="HiddenBit", total_steps=32)
    trainer = Trainer(config, run_dir=tmp_path / "run")
    trainer.run()
    with claim_existing(tmp_path / "run").running():
        assert_same_bits(restore_policy(tmp_path / "run").params, trainer.state.params)
        assert main(["plot", str(tmp_path / "run"), "-o", str(tmp_path / "out.png")]) == 0
        assert main(["export", str(tmp_path / "run"), "-o", str(tmp_path / "p.safetensors")]) == 0
