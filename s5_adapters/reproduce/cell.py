"""One cell, in this process: ``python -m s5_adapters.reproduce.cell CELL.json RESULT.json FOLDER N``.

FOLDER holds what is unfinished, so that a cell which was killed goes on; it is removed when the cell is done.
N cells run at a time.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s5_adapters.reproduce.spec import Cell
from s5_adapters.sweeps.machine import machine, peak_memory_mib
from s5_adapters.sweeps.processes import job_main


def run(description: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    """Run the cell of a description.

    The further arguments are the folder of its unfinished work, and how many cells run at a time.
    """
    cell, folder, side_by_side = Cell.from_dict(description), Path(arguments[0]), int(arguments[1])
    found = importlib.import_module(f"s5_adapters.reproduce.runners.{cell.entry.runner}").run(cell, folder)
    return {
        "cell": cell.to_dict(),
        "machine": machine(cell.device),
        "side_by_side": side_by_side,
        "load_average": round(os.getloadavg()[0], 2),
        "peak_memory_mib": peak_memory_mib(cell.device),
        **found,
    }


def forget(arguments: Sequence[str]) -> None:
    """Remove the unfinished work of a cell that is done."""
    shutil.rmtree(arguments[0], ignore_errors=True)


if __name__ == "__main__":
    sys.exit(job_main(run, afterwards=forget))
