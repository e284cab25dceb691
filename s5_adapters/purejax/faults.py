"""What goes wrong with the folder of a run while it trains, told in one line, with what is kept."""

import contextlib
import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from s5_adapters.purejax.checkpoint import Checkpoints, CheckpointWriteError
from s5_adapters.purejax.claim import Claim, FolderTakenError, claim_new
from s5_adapters.purejax.logging import LOG_NAME
from s5_adapters.purejax.run_folder import CHECKPOINTS_NAME, CONFIG_NAME, RunConfig


class RunFolderError(RuntimeError):
    """A run's folder could not be written any more; the message says why, what is kept and how to go on."""


@contextlib.contextmanager
def told(run_dir: Path, how_to_go_on: str, see_whether_gone: Callable[[], None]) -> Iterator[None]:
    """Turn an error of writing into one line about the folder.

    Args:
        run_dir: the folder.
        how_to_go_on: the command that goes on once the folder can be written again.
        see_whether_gone: raises a ``RunFolderError`` of its own where the folder was taken away.

    Raises:
        RunFolderError: the disk is full, the folder read-only, or the like.
    """
    try:
        yield
    except (OSError, CheckpointWriteError) as error:
        see_whether_gone()
        what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RunFolderError(
            f"stopped: run folder {run_dir}: {what}; {kept_in(run_dir)}; once it can be written again, "
            f"go on with: {how_to_go_on}"
        ) from error


def kept_in(run_dir: Path | None) -> str:
    """Say what of a run is on disk."""
    latest = None if run_dir is None else Checkpoints(run_dir / CHECKPOINTS_NAME).latest()
    if run_dir is None or latest is None:
        return "no checkpoint was kept"
    return f"last good checkpoint: {run_dir / CHECKPOINTS_NAME / str(latest)}"  # as the user names it


def is_gone(run_dir: Path) -> bool:
    """Tell whether a run's folder was taken away, which its open files do not tell."""
    return not (run_dir / CONFIG_NAME).exists()


def rescue(run_dir: Path, config: RunConfig, state: Any) -> str:
    """Save the state of a run whose folder is gone in a new one beside it, if that can be made.

    Args:
        run_dir: the folder that is gone.
        config: of the run.
        state: the ``TrainState`` now; None where no single process has it.

    Returns:
        What became of the folder and what is kept, in words.
    """
    gone = f"run folder {run_dir}: it is gone"
    if state is None:
        return f"{gone}; nothing is kept"
    try:
        claim = _claim_beside(run_dir, config)
    except OSError:
        return f"{gone}; nothing is kept"
    try:
        Checkpoints(claim.run_dir / CHECKPOINTS_NAME).save(int(state.update), state)
        (claim.run_dir / LOG_NAME).touch()
    except (OSError, CheckpointWriteError):
        shutil.rmtree(claim.run_dir / CHECKPOINTS_NAME, ignore_errors=True)
        claim.abandon()
        return f"{gone}; nothing is kept"
    claim.release()
    return (
        f"{gone}; its state at update {int(state.update)}, without its log, was saved beside it; go on with: "
        f"s5-adapters train --resume {claim.run_dir}"
    )


def _claim_beside(run_dir: Path, config: RunConfig) -> Claim:
    """Claim NAME-rescued, or where that is taken NAME-rescued-2, -3, ..."""
    for number in itertools.count(1):
        name = f"{run_dir.name}-rescued" + (f"-{number}" if number > 1 else "")
        with contextlib.suppress(FolderTakenError):
            return claim_new(run_dir.with_name(name), config)
    raise AssertionError("a folder is free")
