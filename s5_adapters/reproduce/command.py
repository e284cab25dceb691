"""``s5-adapters reproduce NAME``."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from s5_adapters.cli_errors import usage_errors
from s5_adapters.core import checks
from s5_adapters.sweeps.processes import Job, device_environment, require_gpu, run_jobs

if TYPE_CHECKING:
    from s5_adapters.reproduce.spec import Cell, Experiment

CELL_MODULE = "s5_adapters.reproduce.cell"
UNFINISHED_NAME = "unfinished"
CACHE_NAME = "compiled"


@dataclass(frozen=True)
class Reproduce:
    """Run a published experiment, or what is missing of it, and put the published numbers beside ours."""

    name: tyro.conf.Positional[str]
    """The experiment: popgym-hard, memory-length, popgym, meta-cartpole, meta-control, meta-dmc, scaling
    or robust."""
    scale: Literal["small", "paper"] = "small"
    """What two CPU cores can do, or the published size."""
    seeds: int | None = None
    """Runs of each line of the table; by default as many as the experiment says."""
    only: tuple[str, ...] = ()
    """Lines to run: TASK, TASK/MEMORY or TASK/MEMORY/SETTING, where * stands for anything."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",))] = None
    """Folder of the results; by default benchmarks/results/reproduce-NAME-SCALE-MACHINE. What it holds is not
    run again."""
    device: Literal["cpu", "gpu"] = "cpu"
    """Where to train. On a GPU all seeds of a line are one program."""
    jobs: int = 1
    """Runs side by side, each on its share of the cores: done sooner, but then no seconds to compare."""
    timeout: float = 86_400.0
    """Seconds that one run may take."""
    dry_run: bool = False
    """List what would be run, with the number of parameters and an estimate of the time, and end."""
    report: bool = False
    """Run nothing; write the report anew from what the folder holds."""
    quiet: bool = False
    """Show no progress."""

    def run(self) -> int:
        """Run the cells and write the report; 1 if a cell failed."""
        from s5_adapters.reproduce.experiments import find_experiment
        from s5_adapters.reproduce.spec import cells, choose

        with usage_errors():
            experiment = find_experiment(self.name)
            checks.positive("timeout", self.timeout)
            self._check_jobs(experiment)
            seeds = experiment.seeds[self.scale] if self.seeds is None else self.seeds
            chosen = choose(experiment.entries(self.scale), self.only)
            wanted = tuple(cells(chosen, seeds, self.device))
            folder = self.output or self._folder()
            if not (self.dry_run or self.report):
                if self.device == "gpu":
                    require_gpu("JAX")
                folder.mkdir(parents=True, exist_ok=True)
        if self.dry_run:
            from s5_adapters.reproduce.plan import print_plan

            print_plan(wanted, folder)
            return 0
        return self._report(folder) if self.report else self._run(wanted, folder)

    def _run(self, wanted: tuple[Cell, ...], folder: Path) -> int:
        from s5_adapters.reproduce.progress import make_display

        command = shlex.join(["s5-adapters", *sys.argv[1:]])
        jobs = [_job(cell, folder, self.jobs) for cell in wanted]
        with (
            usage_errors(),
            make_display(folder / UNFINISHED_NAME, len(jobs), enabled=not self.quiet) as display,
        ):
            outcomes = run_jobs(
                jobs,
                folder,
                command=command,
                timeout=self.timeout,
                side_by_side=self.jobs,
                say=display.say,
                watch=display.watch,
            )
        failed = [outcome for outcome in outcomes if outcome.result is None]
        if len(failed) < len(outcomes):
            self._report(folder)
        if failed:
            print(f"{len(failed)} of {len(outcomes)} cells failed; the same command tries them again")
        return 1 if failed else 0

    def _check_jobs(self, experiment: Experiment) -> None:
        from s5_adapters.sweeps.machine import usable_cores

        checks.integer("jobs", self.jobs)
        why = ""
        if self.device == "gpu":
            why = "on a GPU the seeds of a line are one program"
        elif experiment.timed:
            why = f"{self.name} measures seconds"
        elif self.jobs > usable_cores():
            raise ValueError(f"jobs: got {self.jobs}, expected at most the {usable_cores()} cores there are")
        if why and self.jobs > 1:
            raise ValueError(f"jobs: got {self.jobs}, expected 1: {why}")

    def _report(self, folder: Path) -> int:
        from s5_adapters.reproduce.reports import write_report  # matplotlib and scipy

        with usage_errors():
            print(f"wrote {write_report(self.name, folder)}")
        return 0

    def _folder(self) -> Path:
        from s5_adapters.sweeps.machine import machine, machine_slug

        return (
            Path("benchmarks/results")
            / f"reproduce-{self.name}-{self.scale}-{machine_slug(machine(self.device))}"
        )


def _job(cell: Cell, folder: Path, side_by_side: int) -> Job:
    # A line's program is compiled for its first seed alone.
    cache = str((folder / CACHE_NAME).absolute())
    unfinished = str((folder / UNFINISHED_NAME / cell.name).absolute())
    variables = device_environment(cell.device) | {"JAX_COMPILATION_CACHE_DIR": cache}
    return Job(cell.name, cell.to_dict(), CELL_MODULE, (unfinished, str(side_by_side)), variables)
