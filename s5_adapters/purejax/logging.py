"""A run's log: every update as a line of JSON and as TensorBoard scalars."""

import contextlib
import json
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

LOG_NAME = "log.jsonl"
TENSORBOARD_NAME = "tensorboard"

Row = dict[str, Any]


class Sink(Protocol):
    """Where the numbers of a log go besides."""

    def write(self, update: int, step: int, numbers: Mapping[str, float]) -> None:
        """Take one row's finite numbers, by TensorBoard's tags."""

    def close(self) -> None:
        """Write what is left."""


class RunLog:
    """A log of rows in ``log.jsonl`` and TensorBoard event files in the folder of a run.

    A row holds ``update`` and ``step`` (environment steps so far), then numbers by name; a number that is not
    finite becomes null. Rows of evaluations have ``evaluation_return`` and no ``episode_return``. A run that
    ended because a number was not finite has a last row with ``fault``, a line of text, and no numbers.

    Args:
        directory: folder of the run, which exists.
        keep_updates: on resuming, rows of later updates are dropped, since those will be done again; a log of
            which a line is no row is kept as log.jsonl.damaged.
        sinks: where else the numbers go; closed with the log.
    """

    def __init__(self, directory: Path, keep_updates: int = 0, sinks: Sequence[Sink] = ()):
        self.path = directory / LOG_NAME
        rows, damage = salvage_log(directory)
        kept = [row for row in rows if row["update"] <= keep_updates]
        if damage and self.path.exists():
            set_aside(self.path)
        write_atomically(self.path, "".join(_line(row) for row in kept))
        self._file = self.path.open("a", encoding="utf-8")
        purge_step = kept[-1]["step"] + 1 if kept else 0
        self._tensorboard = _Events(directory / TENSORBOARD_NAME, purge_step)
        self._sinks = sinks

    def write(self, update: int, step: int, numbers: Mapping[str, float]) -> None:
        """Append one row."""
        row: Row = {"update": update, "step": step}
        row |= {name: float(number) if math.isfinite(number) else None for name, number in numbers.items()}
        self._file.write(_line(row))
        for name, number in numbers.items():
            if math.isfinite(number):
                self._tensorboard.write(_tensorboard_tag(name), float(number), step)
        finite = {_tensorboard_tag(n): float(x) for n, x in numbers.items() if math.isfinite(x)}
        for sink in self._sinks:
            sink.write(update, step, finite)

    def write_fault(self, update: int, step: int, fault: str) -> None:
        """Append the row of what ended the run at an update, which has no other: going on drops it."""
        self._file.write(_line({"update": update, "step": step, "fault": fault}))

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._file.flush()
        self._tensorboard.flush()

    def close(self) -> None:
        """Flush and close both files."""
        try:
            self._file.close()
        finally:
            self._tensorboard.close()
            for sink in self._sinks:
                sink.close()

    def __enter__(self) -> Self:
        """Return the log itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files; where something else went wrong, that is what is told."""
        with contextlib.suppress(OSError) if error is not None else contextlib.nullcontext():
            self.close()


class _Events:
    """TensorBoard scalars, written where they are given, so that a full disk is an error there.

    ``SummaryWriter`` writes in a thread: where that dies of a full disk, whoever writes next waits forever.

    Args:
        directory: of the event files, made if need be; each writer begins one of its own.
        purge_step: what TensorBoard has of this step and later ones is void.
    """

    def __init__(self, directory: Path, purge_step: int):
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.record_writer import RecordWriter
        from tensorboardX.summary import scalar

        self._event, self._scalar = Event, scalar
        directory.mkdir(exist_ok=True)
        number = len(list(directory.iterdir()))  # a clock that was set back gives a name a second time
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{number}"
        self._file = RecordWriter(str(directory / name))
        self._write(file_version="brain.Event:2")
        self._write(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def write(self, tag: str, number: float, step: int) -> None:
        self._write(step=step, summary=self._scalar(tag, number))

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _write(self, **fields: Any) -> None:
        self._file.write(self._event(wall_time=time.time(), **fields).SerializeToString())


def read_log(directory: Path) -> Iterator[Row]:
    """Return the rows of a run's ``log.jsonl``, in order; a last line cut short by a crash is left out.

    Raises:
        ValueError: one line, where the folder has no log or a line of it is not a row.
    """
    rows, damage = salvage_log(directory)
    if damage:
        raise ValueError(damage)
    yield from rows


def salvage_log(directory: Path) -> tuple[list[Row], str | None]:
    """Return the rows of a run's ``log.jsonl`` that can be read, and one line about what cannot; None if all.

    A last line cut short by a crash is left out in silence.
    """
    path = directory / LOG_NAME
    if not path.is_file():
        return [], f"{directory}: no {LOG_NAME} there, expected the folder of a run"
    *lines, _ = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows, damage = [], None
    for number, line in enumerate(lines, start=1):
        row = _row(line)
        if row is not None:
            rows.append(row)
        elif damage is None:
            damage = f"{path}:{number}: not a row of a log: {line[:60]!r}"
    return rows, damage


def fault_in(directory: Path) -> str | None:
    """Return the line that tells what ended a run; None where its log has none."""
    rows, _ = salvage_log(directory)
    return rows[-1].get("fault") if rows else None


def set_aside(path: Path) -> Path:
    """Rename a damaged file or folder, so that it no longer counts, to NAME.damaged; returns where it is."""
    aside = path
    while aside.exists():
        aside = aside.with_name(f"{aside.name}.damaged")
    os.replace(path, aside)
    return aside


def write_atomically(path: Path, text: str) -> None:
    """Write a text file under another name and rename it, so that nobody ever sees half of it."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _row(line: str) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    is_one = isinstance(row, dict) and all(isinstance(row.get(name), int) for name in ("update", "step"))
    return row if is_one else None


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"


_GROUPS = {
    "episode": "episode",
    "episodes": "episode",
    "evaluation": "evaluation",
    "steps": "time",
    "seconds": "time",
}


def _tensorboard_tag(name: str) -> str:
    return f"{_GROUPS.get(name.split('_')[0], 'train')}/{name}"
