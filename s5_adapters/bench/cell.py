"""One cell, in this process: ``python -m s5_adapters.bench.cell CELL.json WEIGHTS RESULT.json``.

WEIGHTS is the portable policy that all cells of a spec, memory and seed start from, or ``-``.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

import jax

from s5_adapters.bench.machine import machine, peak_memory_mib
from s5_adapters.bench.record import Recorder
from s5_adapters.bench.spec import Cell
from s5_adapters.core import ActorCritic
from s5_adapters.core.files.weights import Policy, save_policy, write_whole
from s5_adapters.purejax.problem import build_problem


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


def main(arguments: list[str]) -> int:
    """Run the cell in a file and write its result into another."""
    cell = Cell.from_dict(json.loads(Path(arguments[0]).read_text()))
    weights = None if arguments[1] == "-" else Path(arguments[1])
    if weights is not None and not weights.exists():
        write_weights(cell, weights)
    result = run_cell(cell, weights)
    write_whole(arguments[2], (json.dumps(result, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
