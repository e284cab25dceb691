"""A run's log at Weights & Biases."""

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def require_wandb() -> None:
    """Refuse to go on without the package.

    Raises:
        ValueError: wandb is not installed; one line.
    """
    if "wandb" not in sys.modules and find_spec("wandb") is None:
        raise ValueError("wandb: it takes pip install 's5-adapters[wandb]'")


class WandbError(OSError):
    """Weights & Biases refused, or could not be reached; an error of writing, like those of a disk."""


class WandbLog:
    """Sends a run's numbers to Weights & Biases, where a resumed run goes on in the same place.

    Project, account and mode are wandb's own business (``WANDB_PROJECT``, ``WANDB_MODE=offline``, ...); the
    project is ``s5-adapters`` where nothing says otherwise. The run is known by its folder.

    Args:
        directory: the folder of the run.
        config: what ``config.json`` holds.

    Raises:
        ValueError: wandb is not installed; one line.
        WandbError: wandb failed, here or in any method; one line with its own words.
    """

    def __init__(self, directory: Path, config: Mapping[str, Any]):
        require_wandb()
        folder = directory.absolute()
        with _in_one_line():
            import wandb

            self._run: Any = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "s5-adapters"),
                id=hashlib.sha256(str(folder).encode()).hexdigest()[:16],
                resume="allow",
                name=folder.name,
                dir=str(folder),
                config=dict(config),
                settings=wandb.Settings(console="off"),
            )
            for prefix in ("episode", "evaluation", "train", "time"):
                self._run.define_metric(f"{prefix}/*", step_metric="step")

    def write(self, update: int, step: int, numbers: Mapping[str, float]) -> None:
        """Send one row."""
        with _in_one_line():
            self._run.log({**numbers, "step": step, "update": update})

    def close(self) -> None:
        """End the run there."""
        with _in_one_line():
            self._run.finish()


@contextmanager
def _in_one_line() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # wandb's own errors have no class in common with others that it lets through
        told = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WandbError(f"wandb: {told}") from error
