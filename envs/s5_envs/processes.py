"""A process that JAX cannot run in is named before it hangs."""

from __future__ import annotations

import multiprocessing.process
import os

_imported_in = os.getpid()


def refuse_forked_process() -> None:
    """Raise in a process made by fork: it inherits JAX's locks without its threads, and the first call hangs.

    Raises:
        RuntimeError: in such a process, with the way out.
    """
    process = multiprocessing.process.current_process()
    if os.getpid() != _imported_in or getattr(process, "_start_method", None) == "fork":
        raise RuntimeError(
            "a JAX environment cannot run in a process started by fork: use start_method='spawn' or "
            "'forkserver', or step many at once without processes (gymnasium.make_vec, JaxVecEnv)"
        )
