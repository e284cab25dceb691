"""How runs stand, as their folders tell: going on, stopped, done, unreadable."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from s5_adapters.cli import main
from s5_adapters.purejax import RunConfig
from s5_adapters.purejax.claim import claim_existing, claim_new
from s5_adapters.purejax.standing import find_runs, standing
from tests.purejax.helpers import small_config

CONFIG = small_config()

_ASK_AGAIN_AND_AGAIN = """
import sys
from pathlib import Path
from s5_adapters.purejax.claim import is_going_on
print("asking", flush=True)
while True:
    is_going_on(Path(sys.argv[1]))
"""


def write_run(run_dir: Path, updates: int, saved: int) -> Path:
    """Write a folder as a run leaves it after so many updates, at 100 steps a second and a return of 0.5."""
    claim_new(run_dir, RunConfig(CONFIG)).release()
    if saved:
        (run_dir / "checkpoints" / str(saved)).mkdir(parents=True)
    seconds = CONFIG.steps_per_update / 100
    rows = [
        {"update": i, "step": i * CONFIG.steps_per_update, "episode_return": None if i == 1 else 0.5}
        | {"seconds": i * seconds, "steps_per_second": 100.0}
        for i in range(1, updates + 1)
    ]
    if updates:
        rows.append({"update": updates, "step": rows[-1]["step"], "evaluation_return": 9.0})
        (run_dir / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run_dir


def test_a_run_is_stopped_or_done_by_what_it_has_saved(tmp_path):
    total = CONFIG.num_updates
    stopped = standing(write_run(tmp_path / "stopped", 7, 4))
    assert stopped.state == "stopped"
    assert (stopped.update, stopped.saved, stopped.num_updates) == (7, 4, total)
    assert stopped.step == 7 * CONFIG.steps_per_update
    assert (stopped.episode_return, stopped.steps_per_second) == (0.5, 100.0)
    assert stopped.seconds_left == pytest.approx((total - 7) * CONFIG.steps_per_update / 100)
    assert 0 <= stopped.seconds_silent < 600
    assert standing(write_run(tmp_path / "done", total, total)).state == "done"
    assert standing(write_run(tmp_path / "not saved", total, 4)).state == "stopped"


def test_a_run_that_has_not_trained_has_no_numbers(tmp_path):
    run = standing(write_run(tmp_path / "run", 0, 0))
    assert (run.state, run.update, run.saved, run.step) == ("stopped", 0, 0, 0)
    assert all(map(math.isnan, run[6:]))
    assert standing(write_run(tmp_path / "first", 1, 0)).steps_per_second == 100.0
    assert math.isnan(standing(tmp_path / "first").episode_return)


def test_a_run_goes_on_while_a_process_holds_its_folder(tmp_path):
    run_dir = write_run(tmp_path / "run", 7, 4)
    claim = claim_existing(run_dir)
    assert standing(run_dir).state == "running"
    asked = subprocess.run(
        [sys.executable, "-m", "s5_adapters", "status", str(tmp_path)], capture_output=True, text=True
    )
    assert asked.returncode == 0, asked.stderr
    assert "running" in asked.stdout
    claim.release()
    assert standing(run_dir).state == "stopped"


def test_asking_keeps_no_run_out_of_its_folder(tmp_path):
    run_dir = write_run(tmp_path / "run", 7, 4)
    command = [sys.executable, "-c", _ASK_AGAIN_AND_AGAIN, str(run_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout is not None
        assert asking.stdout.readline() == "asking\n"
        for _ in range(200):
            claim_existing(run_dir).release()
        asking.kill()


def test_status_finds_runs_below_a_folder_and_names_what_it_cannot_read(tmp_path, capsys):
    total = CONFIG.num_updates
    write_run(tmp_path / "sweep" / "one", total, total)
    write_run(tmp_path / "sweep" / "deep" / "two", 7, 4)
    broken = write_run(tmp_path / "sweep" / "three", 7, 4)
    assert len(find_runs([tmp_path, tmp_path / "sweep" / "one"])) == 3
    assert main(["status", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 stopped, 1 done"
    (broken / "config.json").write_text("{")
    assert main(["status", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == "1 stopped, 1 done"
    assert told.err.startswith(f"s5-adapters: {broken / 'config.json'}: ")


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_runs_is_one_line(tmp_path, capsys, name):
    (tmp_path / "empty").mkdir()
    assert main(["status", str(tmp_path / name)]) == 2
    assert capsys.readouterr().err.startswith(f"s5-adapters: {tmp_path / name}: no ")
