"""Signals and a time limit, held back until it is a good moment to save or to stop."""

import contextlib
import re
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Self

STOPPING = (signal.SIGINT, signal.SIGTERM)
SAVING: tuple[signal.Signals, ...] = (signal.SIGUSR1,) if hasattr(signal, "SIGUSR1") else ()  # not on Windows


class Interrupts:
    """While entered, the first SIGINT or SIGTERM only sets ``received``; the second does what it always did.

    SIGUSR1 sets ``wants_save``, as often as it comes. Outside the main thread, where Python allows no
    handlers, it does nothing.
    """

    received: signal.Signals | None = None
    wants_save = False

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}

    @contextlib.contextmanager
    def saving(self) -> Iterator[Self]:
        """Hold back SIGUSR1 alone: what comes before the run does, which then saves after its first chunk."""
        is_main = threading.current_thread() is threading.main_thread()
        before = {number: signal.signal(number, self._save) for number in SAVING if is_main}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def __enter__(self) -> Self:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._stop) for number in STOPPING}
            self._before |= {number: signal.signal(number, self._save) for number in SAVING}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the handlers back."""
        self._restore(*STOPPING, *SAVING)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore(*STOPPING)

    def _save(self, number: int, frame: FrameType | None) -> None:
        self.wants_save = True

    def _restore(self, *numbers: signal.Signals) -> None:
        for number in numbers:
            if number in self._before:
                signal.signal(number, self._before.pop(number))


class TimeLimit:
    """A limit on how long a process may take, by the monotonic clock, which no one sets.

    Args:
        seconds: from ``began`` on.
        began: when, as ``time.monotonic`` gives it; None for now.

    Attributes:
        seconds: the whole of it, in seconds, as it was given.
    """

    def __init__(self, seconds: float, began: float | None = None):
        self.seconds = seconds
        self._end = (time.monotonic() if began is None else began) + seconds
        self._chunk = self._save = 0.0

    def note(self, *, chunk: float = 0.0, save: float = 0.0) -> None:
        """Remember how long a chunk of updates with what follows it, or a checkpoint, took at most."""
        self._chunk, self._save = max(self._chunk, chunk), max(self._save, save)

    def is_near(self) -> bool:
        """Tell whether another chunk and a checkpoint, at their slowest and half again, might not fit."""
        return time.monotonic() + 1.5 * (self._chunk + self._save) + _MARGIN > self._end


_MARGIN = 1.0
"""Seconds that the end of a process takes beside."""
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as ``"3h50m"``, ``"90s"`` or ``"1d12h"``.

    Raises:
        ValueError: one line, where it is none.
    """
    found = _DURATION.fullmatch(text)
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0, 0)
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if not total:
        raise ValueError(f"max-time: got {text!r}, expected a duration such as 3h50m, 45m or 90s")
    return float(total)
