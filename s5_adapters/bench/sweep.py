"""The cells of a benchmark as jobs; finished ones are not run again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from s5_adapters.bench.spec import OWN, Cell
from s5_adapters.sweeps.processes import Job, Outcome, device_environment, run_jobs

WEIGHTS_NAME = "weights"


def run_sweep(
    cells: Iterable[Cell],
    folder: Path,
    *,
    command: str,
    timeout: float,
    modules: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> list[Outcome]:
    """Run every cell that the folder holds no result of, its process importing ``modules``: see
    ``run_jobs``.
    """
    (folder / WEIGHTS_NAME).mkdir(parents=True, exist_ok=True)
    jobs = [_job(cell, folder, modules) for cell in cells]
    return run_jobs(jobs, folder, command=command, timeout=timeout, say=say)


def weights_file(cell: Cell, folder: Path) -> Path:
    """Return the file of the policy that a cell starts from: one for each problem, memory and seed."""
    return folder / WEIGHTS_NAME / f"{cell.spec.ppo.env_id}-{cell.memory}-seed{cell.seed}.safetensors"


def _job(cell: Cell, folder: Path, modules: Sequence[str]) -> Job:
    weights = "-" if cell.memory == OWN else str(weights_file(cell, folder))
    # What compiling takes is measured: no program comes from a cache.
    variables = device_environment(cell.device) | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    return Job(cell.name, cell.to_dict(), "s5_adapters.bench.cell", (weights, *modules), variables)
