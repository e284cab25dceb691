"""Processes that JAX cannot compute in, named before the first call hangs in one."""

import os
from typing import Final

from jax._src import xla_bridge

_WAY_OUT: Final = "use the start method 'spawn' or 'forkserver' (multiprocessing.get_context), or threads"
_forked = False


def _note_fork() -> None:
    global _forked
    _forked = _forked or xla_bridge.backends_are_initialized()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def refuse_forked_process(caller: str) -> None:
    """Raise in a process that was forked from one in which JAX had computed already.

    It inherits JAX's locks without its threads: what is compiled may run, the next compilation hangs for
    ever. A process that was forked before JAX computed anything is sound.

    Args:
        caller: what the error names.

    Raises:
        RuntimeError: in such a process, with the way out.

    """
    if _forked:
        raise RuntimeError(
            f"{caller}: cannot compute in process {os.getpid()}, which was forked after JAX had computed in "
            f"its parent: {_WAY_OUT}"
        )
