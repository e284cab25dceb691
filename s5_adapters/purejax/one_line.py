"""Errors of JAX's connections between processes, told in one line.

Where the first process of several dies, JAX ends the others from C++, with dozens of lines and no
exception. A process of its own, forked before JAX is imported, reads what this one writes to standard error.
"""

import os
import re
import signal
from collections.abc import Iterable, Iterator

GONE = "s5-adapters: another process of this run is gone; all are started again by the same command"
"""The line, as those of ``processes.lost_together`` begin too."""
_FATAL = "Terminating process because the JAX distributed service detected fatal errors"
_NOISE = re.compile(
    r"[WEFI]\d{4} \S+ +\d+ (preemption_sync_manager|coordination_service|distributed_runtime|client)\S*\]"
    r"|Additional GRPC error information|:UNKNOWN:"
)


def tell_in_one_line() -> None:
    """Send this process's standard error through ``without_noise``, from now to its end."""
    if not hasattr(os, "fork"):
        return
    read, write = os.pipe()
    if os.fork():
        os.close(read)
        os.dup2(write, 2)
        os.close(write)
        return
    os.close(write)
    for number in (signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])):
        signal.signal(number, signal.SIG_IGN)  # a scheduler sends them to all; it ends when the other does
    with os.fdopen(read, errors="replace") as lines:
        for line in without_noise(lines):
            os.write(2, line.encode())
    os._exit(0)


def without_noise(lines: Iterable[str]) -> Iterator[str]:
    """Give lines without those of JAX's connections; the end of the process by them is one line, once."""
    is_told = is_over = False
    for line in lines:
        if line.startswith(GONE):
            yield from () if is_told else (line,)
            is_told = True
        elif _FATAL in line:
            yield from () if is_told else (f"{GONE}\n",)
            is_told = is_over = True
        elif not is_over and not _NOISE.match(line):
            yield line
