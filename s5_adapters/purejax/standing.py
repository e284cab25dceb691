"""How runs stand, read from their folders alone, while they go on or long after."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from s5_adapters.purejax.checkpoint import Checkpoints
from s5_adapters.purejax.claim import is_going_on
from s5_adapters.purejax.logging import LOG_NAME, TENSORBOARD_NAME, Row, read_log
from s5_adapters.purejax.run_folder import CHECKPOINTS_NAME, CONFIG_NAME, read_config

_EXPECTED = "expected folders of runs"
RECENT = 10
"""Updates whose returns and speeds count as lately."""


class Standing(NamedTuple):
    """The standing of one run."""

    run_dir: Path
    state: Literal["running", "done", "stopped"]
    """A run that was killed is stopped, as one that was told to; ``--resume`` goes on with either."""
    update: int
    """Updates in the log."""
    saved: int
    """The update of the latest checkpoint; 0 where there is none."""
    num_updates: int
    step: int
    """Environment steps in the log."""
    episode_return: float
    """Mean return of the episodes that ended lately; NaN before the first."""
    steps_per_second: float
    """Environment steps per second lately; NaN before the first update."""
    seconds_left: float
    """Seconds of training that are left at that speed; NaN before the first update."""
    seconds_silent: float
    """Seconds since the log was written last; NaN where there is none."""


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """Return the folders of runs among some folders and everything below them, each once.

    Other programs call a file ``config.json`` too: a run's names an environment, or has a log or checkpoints
    beside it. A folder that cannot be looked into may hold runs, so it is among them: ``standing`` says why.

    Raises:
        ValueError: one line, where there is no such folder, or none of a run in it.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            raise ValueError(f"{path}: {'is a file' if path.exists() else 'no such folder'}, {_EXPECTED}")
        runs = _runs_below(path)
        if not runs:
            raise ValueError(f"{path}: no {CONFIG_NAME} of a run in it or below, {_EXPECTED}")
        found |= dict.fromkeys(runs)
    return list(found)


def standing(run_dir: Path) -> Standing:
    """Read how a run stands; nothing in its folder changes.

    Raises:
        ValueError: one line, where its configuration or its log is not one, or something of it cannot be
            read, or not any more.
    """
    try:
        return _standing(run_dir)
    except OSError as error:
        raise ValueError(f"{error.filename or run_dir}: {error.strerror or error}") from error


def _standing(run_dir: Path) -> Standing:
    config = read_config(run_dir).training
    rows = [row for row in _rows(run_dir) if "seconds" in row]
    update, step = (rows[-1]["update"], rows[-1]["step"]) if rows else (0, 0)
    speed = _mean(rows, "steps_per_second")
    saved = Checkpoints(run_dir / CHECKPOINTS_NAME).latest() or 0
    is_done = min(update, saved) >= config.num_updates
    return Standing(
        run_dir,
        "running" if is_going_on(run_dir) else "done" if is_done else "stopped",
        update,
        saved,
        config.num_updates,
        step,
        _mean(rows, "episode_return"),
        speed,
        (config.num_updates - update) * config.steps_per_update / speed,
        _seconds_since(run_dir / LOG_NAME),
    )


def _runs_below(path: Path) -> list[Path]:
    runs: list[Path] = []
    shut: list[Path] = []
    for name, below, files in os.walk(path, onerror=lambda error: shut.append(Path(error.filename))):
        if CONFIG_NAME in files and _is_run(Path(name)):
            runs.append(Path(name))
            below[:] = [folder for folder in below if folder not in (CHECKPOINTS_NAME, TENSORBOARD_NAME)]
    return sorted(runs + [folder for folder in shut if os.path.exists(folder)])  # others went meanwhile


def _is_run(folder: Path) -> bool:
    if any(os.path.exists(folder / name) for name in (LOG_NAME, CHECKPOINTS_NAME)):
        return True
    try:
        return b'"env_id"' in (folder / CONFIG_NAME).read_bytes()
    except FileNotFoundError:  # it went meanwhile
        return False
    except OSError:  # `standing` says why
        return True


def _rows(run_dir: Path) -> list[Row]:
    return list(read_log(run_dir)) if (run_dir / LOG_NAME).is_file() else []


def _mean(rows: Sequence[Row], name: str) -> float:
    numbers = [row[name] for row in rows[-RECENT:] if row.get(name) is not None]
    return sum(numbers) / len(numbers) if numbers else math.nan


def _seconds_since(path: Path) -> float:
    return max(0.0, time.time() - path.stat().st_mtime) if path.is_file() else math.nan
