"""One cell, in this process: ``python -m s5_adapters.bench.cell CELL.json RESULT.json WEIGHTS [MODULE...]``.

WEIGHTS is the portable policy that all cells of a spec, memory and seed start from, or ``-``; the modules
register memories of the user's own.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from s5_adapters.bench.record import Recorder
from s5_adapters.bench.spec import Cell
from s5_adapters.cli_modules import import_modules
from s5_adapters.core import ActorCritic
from s5_adapters.core.files.weights import Policy, save_policy
from s5_adapters.purejax.problem import build_problem
from s5_adapters.sweeps.machine import machine, peak_memory_mib
from s5_adapters.sweeps.processes import job_main


def write_weights(cell: Cell, path: Path) -> None:
    """Make the policy that every framework starts this cell's memory and seed from."""
    config = build_problem(cell.config).net.config
    save_policy(path, Policy(config, ActorCritic(config).init(jax.random.key(cell.seed))))


def run_cell(cell: Cell, weights: Path | None) -> dict[str, object]:
    """Train a cell and return its result."""
    framework = importlib.import_module(f"s5_adapters.bench.frameworks.{cell.framework.replace('-', '_')}")
    record = Recorder(cell.spec)
    framework.run(cell, weights, record)
    return {
        "cell": cell.to_dict(),
        "machine": machine(cell.device),
        "load_average": round(os.getloadavg()[0], 2),
        "peak_memory_mib": peak_memory_mib(cell.device),
        **record.result(),
    }


def run(description: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, object]:
    """Run the cell of a description; ``arguments``: the policy that it starts from, modules to import."""
    file, *modules = arguments
    import_modules(modules)
    cell = Cell.from_dict(description)
    weights = None if file == "-" else Path(file)
    if weights is not None and not weights.exists():
        write_weights(cell, weights)
    return run_cell(cell, weights)


if __name__ == "__main__":
    sys.exit(job_main(run))
