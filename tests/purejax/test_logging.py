import json

import pytest

from s5_adapters.purejax.logging import RunLog, read_log


def test_rows_come_back_and_what_is_not_finite_is_null(tmp_path):
    with RunLog(tmp_path) as log:
        log.write(1, 32, {"episode_return": float("nan"), "value_loss": 0.5})
        log.write(2, 64, {"episode_return": 1.0, "value_loss": 0.25})
    assert list(read_log(tmp_path)) == [
        {"update": 1, "step": 32, "episode_return": None, "value_loss": 0.5},
        {"update": 2, "step": 64, "episode_return": 1.0, "value_loss": 0.25},
    ]
    assert all(json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines())
    assert list((tmp_path / "tensorboard").iterdir())


def test_going_on_drops_later_rows_and_a_line_cut_short(tmp_path):
    with RunLog(tmp_path) as log:
        for update in (1, 2, 3):
            log.write(update, 32 * update, {"value_loss": 0.0})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"update": 4')
    assert [row["update"] for row in read_log(tmp_path)] == [1, 2, 3]
    with RunLog(tmp_path, keep_updates=2) as log:
        log.write(3, 96, {"value_loss": 1.0})
    assert [(row["update"], row["value_loss"]) for row in read_log(tmp_path)] == [(1, 0), (2, 0), (3, 1)]


def test_what_is_no_log_is_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"no log\.jsonl there"):
        list(read_log(tmp_path))
    (tmp_path / "log.jsonl").write_text('{"update": 1, "step": 2}\nhello\n')
    with pytest.raises(ValueError, match=r"log\.jsonl:2: not a row of a log: 'hello'"):
        list(read_log(tmp_path))
