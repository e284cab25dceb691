"""What goes wrong with the folder of a run while it trains, told in one line, with what is kept."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from s5_adapters.purejax.checkpoint import Checkpoints, CheckpointWriteError
from s5_adapters.purejax.logging import LOG_NAME
from s5_adapters.purejax.run_folder import CHECKPOINTS_NAME, CONFIG_NAME, RunConfig, write_config

_GO_ON = "go on with: s5-adapters train --resume"


class RunFolderError(RuntimeError):
    """A run's folder could not be written any more; the message says why, what is kept and how to go on."""


@contextlib.contextmanager
def told(run_dir: Path) -> Iterator[None]:
    """Turn an error of writing into one line about the folder.

    Raises:
        RunFolderError: the disk is full, the folder read-only, or the like.
    """
    try:
        yield
    except (OSError, CheckpointWriteError) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RunFolderError(
            f"stopped: run folder {run_dir}: {what}; {kept_in(run_dir)}; once it can be written again, "
            f"{_GO_ON} {run_dir}"
        ) from error


def kept_in(run_dir: Path | None) -> str:
    """Say what of a run is on disk."""
    latest = None if run_dir is None else Checkpoints(run_dir / CHECKPOINTS_NAME).latest()
    if run_dir is None or latest is None:
        return "no checkpoint was kept"
    return f"last good checkpoint: {run_dir / CHECKPOINTS_NAME / str(latest)}"  # as the user names it


def see_whether_gone(run_dir: Path, config: RunConfig, update: int, state: Any) -> None:
    """Find out that a run's folder was taken away, which its open files do not tell, and save beside it.

    Args:
        run_dir: the folder.
        config: of the run.
        update: updates done.
        state: of the run now; None where no single process has it.

    Raises:
        RunFolderError: it is gone; what there was to save is in a folder beside it, if that can be made.
    """
    if (run_dir / CONFIG_NAME).exists():
        return
    rescued, kept = run_dir.with_name(f"{run_dir.name}-rescued"), "nothing is kept"
    if state is not None:
        with contextlib.suppress(OSError, CheckpointWriteError):
            write_config(rescued, config)
            (rescued / LOG_NAME).touch()
            Checkpoints(rescued / CHECKPOINTS_NAME).save(update, state)
            kept = f"its state at update {update}, without its log, was saved beside it; {_GO_ON} {rescued}"
    raise RunFolderError(f"stopped: run folder {run_dir}: it is gone; {kept}")
