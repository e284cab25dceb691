"""How runs stand, as their folders tell: going on, stopped, done, unreadable."""

import errno
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from s5_adapters.cli import main
from s5_adapters.purejax import RunConfig
from s5_adapters.purejax import standing as standing_module
from s5_adapters.purejax.claim import claim_existing, claim_new
from s5_adapters.purejax.standing import find_runs, standing
from tests.documents import DOCS
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


def test_what_cannot_be_read_hides_no_other_run(tmp_path, capsys, monkeypatch):
    """A log without permission, a run removed after it was found, a folder that cannot be looked into."""
    for name in ("fine", "shut", "gone"):
        write_run(tmp_path / name, 7, 4)
    (tmp_path / "locked").mkdir()
    log, locked = str(tmp_path / "shut" / "log.jsonl"), str(tmp_path / "locked")

    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    real_scan, real_read, real_lock = os.scandir, Path.read_text, standing_module.is_going_on
    monkeypatch.setattr(os, "scandir", lambda path: refuse(path) if str(path) == locked else real_scan(path))
    monkeypatch.setattr(
        Path, "read_text", lambda path, **how: refuse(path) if str(path) == log else real_read(path, **how)
    )

    def remove_and_ask(run_dir):
        if run_dir.name == "gone":
            shutil.rmtree(run_dir)
        return real_lock(run_dir)

    monkeypatch.setattr(standing_module, "is_going_on", remove_and_ask)
    assert main(["status", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == "1 stopped"
    gone, shut_folder, shut_log = told.err.splitlines()
    assert gone == f"s5-adapters: {tmp_path / 'gone' / 'config.json'}: No such file or directory"
    assert shut_folder.startswith(f"s5-adapters: {locked}: ")
    assert shut_log == f"s5-adapters: {log}: Permission denied"


def test_the_config_json_of_another_program_is_no_run(tmp_path, capsys):
    write_run(tmp_path / "run", 7, 4)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"hidden_size": 8}')
    assert main(["status", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 stopped"
    assert main(["status", str(tmp_path / "model")]) == 2


def test_a_file_is_told_from_a_folder_that_is_missing(tmp_path, capsys):
    (tmp_path / "file").touch()
    for name, what in (("file", "is a file"), ("missing", "no such folder")):
        assert main(["status", str(tmp_path / name)]) == 2
        line = f"s5-adapters: {tmp_path / name}: {what}, expected folders of runs\n"
        assert capsys.readouterr().err == line


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_runs_is_one_line(tmp_path, capsys, name):
    (tmp_path / "empty").mkdir()
    assert main(["status", str(tmp_path / name)]) == 2
    assert capsys.readouterr().err.startswith(f"s5-adapters: {tmp_path / name}: no ")


@pytest.mark.parametrize("script", range(2))
@pytest.mark.parametrize(
    ("srun", "stands", "code", "queued"),
    [(0, "stopped", 0, True), (0, "done", 0, False), (1, "stopped", 1, False), (143, "stopped", 143, False)],
)
def test_a_job_of_the_docs_is_queued_again_where_time_ran_out_alone(
    tmp_path, script, srun, stands, code, queued
):
    """Not where the run is done, where a number was not finite, where an option is wrong."""
    jobs = re.findall(r"```sh\n(#!/bin/bash\n.*?)```", (DOCS / "scaling.md").read_text(), flags=re.DOTALL)
    (tmp_path / "job.sh").write_text(jobs[script].replace("source .venv/bin/activate\n", ""))
    programs = {
        "srun": f"exit {srun}",
        "sbatch": 'echo "$1" > queued',
        "s5-adapters": f"echo 'runs/paper  {stands}  5/10'",
    }
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    ended = subprocess.run(["bash", "job.sh"], cwd=tmp_path, env=os.environ | {"PATH": path})
    assert ended.returncode == code
    assert (tmp_path / "queued").exists() == queued
