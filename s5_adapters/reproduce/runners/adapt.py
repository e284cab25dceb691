"""Train in the jitted trainer, then play whole tasks with the policy: return by trial, reward by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from s5_adapters.adaptation.curves import Question, ask
from s5_adapters.adaptation.table import plain
from s5_adapters.reproduce.runners import train
from s5_adapters.reproduce.runners.train import describe, estimate
from s5_adapters.reproduce.spec import Cell

__all__ = ["describe", "estimate", "run"]

TASKS = 256
"""Tasks of each family that a trained policy plays."""


def run(cell: Cell, folder: Path) -> dict[str, Any]:
    """Train the cell's one seed and return what is known of it, with its returns in every family.

    Args:
        cell: what to train; of its work, ``trials`` and ``held_out`` say what is asked afterwards.
        folder: where the run is kept until it is done; one that is there is continued.
    """
    work = cell.entry.work
    found = train.run(cell, folder)
    question = Question(TASKS, work["trials"], work["held_out"], seed=cell.seeds[0])
    environment, adaptations = ask([folder], question)
    (alone,) = found["runs"]
    # Who was trained on the held-out families alone plays them as its own.
    split = environment.env_kwargs.get("split")
    known = [plain(a) | {"split": split or a.split} for a in adaptations]
    # The unfinished run's folder is this machine's, and gone once the cell is done.
    alone["families"] = [{name: value for name, value in a.items() if name != "runs"} for a in known]
    return found
