"""Several processes that train one run together: started, agreeing after every chunk, lost together.

JAX connects them (``jax.distributed``). All compute; the first alone reads and writes files, evaluates and
prints. Whatever a process decides by itself (a signal, its clock) it decides with the others, so that all of
them run the same programs in the same order.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import jax
import numpy as np

from s5_adapters.purejax.one_line import GONE
from s5_adapters.purejax.words import from_words, to_words

T = TypeVar("T")
OPTIONS = ("--coordinator", "--num-processes", "--process-id")
"""The command line's options for the arguments of ``start``."""
HEARTBEAT_SECONDS = 20
"""How long a process may be silent before the others take it for dead."""


class Decision(NamedTuple):
    """What is done after a chunk of updates."""

    next_chunk: int
    """Updates of the next chunk; the first process's."""
    signal_number: int
    """A signal to stop that any of them received; 0 for none."""
    saves: bool
    """Any of them was asked to save."""
    is_late: bool
    """The time of any of them is nearly up."""


def start(
    coordinator: str | None = None, num_processes: str | None = None, process_id: str | None = None
) -> None:
    """Connect this process with the others of its run, before JAX is used.

    Under Slurm and Open MPI all arguments are found out; each process then takes one accelerator, by its
    number on its host.

    Args:
        coordinator: host and port on which the first process listens.
        num_processes: how many there are, a number as the command line has it.
        process_id: which of them this is, from 0, likewise.

    Raises:
        ValueError: one line, where it is not found out, or the others do not come.
    """
    try:
        count, own = (None if number is None else int(number) for number in (num_processes, process_id))
        # It would take SIGTERM from this process, and tell only who asks at every update. See ``agree``.
        jax.config.update("jax_enable_preemption_service", False)
        jax.distributed.initialize(coordinator, count, own, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except (ValueError, RuntimeError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"distributed: {line} (expected Slurm, Open MPI, or --coordinator HOST:PORT --num-processes N "
            "--process-id I)"
        ) from error


def are_connected() -> bool:
    """Tell whether ``start`` was called."""
    return bool(jax.distributed.is_initialized())


def are_several() -> bool:
    """Tell whether this process is one of several."""
    return are_connected() and int(jax.process_count()) > 1


def is_first() -> bool:
    """Tell whether this process is the one that reads, writes and prints."""
    return not are_several() or int(jax.process_index()) == 0


def agree(mine: Decision) -> Decision:
    """Return what all processes decide together."""
    if not are_several():
        return mine
    from jax.experimental import multihost_utils

    rows = np.asarray(multihost_utils.process_allgather(np.array(mine, np.int32)))
    chunk, signals, saves, late = rows.T
    return Decision(int(chunk[0]), int(signals.max()), bool(saves.any()), bool(late.any()))


def first_number(number: int) -> int:
    """Return the first process's number, whatever this one's is."""
    if not are_several():
        return number
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def from_first(tree: T | None, like: T) -> T | None:
    """Return the first process's arrays, or None where it has none.

    Args:
        tree: what the first process has; nobody asks the others.
        like: its structure, as ``jax.eval_shape`` gives it.
    """
    if not are_several():
        return tree
    from jax.experimental import multihost_utils

    if not multihost_utils.broadcast_one_to_all(np.int32(tree is not None)):
        return None
    shapes = jax.eval_shape(lambda tree: jax.tree.map(to_words, tree), like)
    words = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    if is_first():
        words = jax.tree.map(lambda leaf: np.asarray(to_words(leaf)), tree)
    given = multihost_utils.broadcast_one_to_all(words)
    shared: T = jax.tree.map(lambda leaf, array: from_words(leaf, np.asarray(array)), like, given)
    return shared


def leave(code: int) -> int:
    """Return an exit code, or, one of several processes, end with it at once.

    What stops one process alone, as a disk that is full, it cannot tell the others: they wait for it in an
    exchange, and it would wait for them to leave in order.
    """
    if are_several():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


@contextlib.contextmanager
def lost_together() -> Iterator[None]:
    """End this process, with one line, where another is gone: no exchange with it will ever end.

    The process ends at once, since leaving in order would mean to wait for the others.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not are_several():
            raise
        print(f"{GONE} ({str(error).strip().splitlines()[0][:120]})", file=sys.stderr, flush=True)
        os._exit(1)
