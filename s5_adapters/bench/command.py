"""``s5-adapters bench run | report``."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from s5_adapters.bench.spec import FRAMEWORKS, OWN, Spec, cells, specs
from s5_adapters.bench.sweep import run_sweep
from s5_adapters.cli_modules import Command
from s5_adapters.core import checks, memory_names
from s5_adapters.sweeps.processes import require_gpu

DEFAULT_MEMORIES = ("s5", OWN)


@dataclass(frozen=True)
class Run(Command):
    """Run a sweep, or the cells that it lacks, and write its report."""

    output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",))] = None
    """Folder of the sweep; by default benchmarks/results/sweep-SIZE-MACHINE. Runs that it holds are not done
    again."""
    size: Literal["small", "full"] = "small"
    """Minutes, or hours."""
    envs: tuple[str, ...] = ()
    """Environments, of those of the sweep; by default all."""
    frameworks: tuple[Literal["purejax", "sb3", "sb3-segments", "rllib"], ...] = FRAMEWORKS  # type: ignore[assignment]
    """Where the same spec is run."""
    memories: tuple[str, ...] = DEFAULT_MEMORIES
    """The memory between encoder and torsos, by name; own-lstm is the framework's own LSTM policy, where it
    has one."""
    seeds: int = 1
    """Runs of each combination."""
    steps: int | None = None
    """Environment steps of each run; by default those of the size."""
    device: Literal["cpu", "gpu"] = "cpu"
    """Where the learner computes, in all of them."""
    timeout: float = 3600.0
    """Seconds that one run may take."""

    def run(self) -> int:
        """Run the cells, write the report; 1 if a cell failed."""
        from s5_adapters.bench.report import write_report  # matplotlib and scipy

        chosen = self._specs()
        for memory in self.memories:
            checks.one_of("memories", memory, [OWN, *memory_names()])
        checks.integer("seeds", self.seeds)
        checks.positive("timeout", self.timeout)
        if self.device == "gpu":
            require_gpu("JAX", "torch")
        wanted = cells(chosen, self.frameworks, self.memories, self.seeds, self.device)
        folder = self.output or self._folder()
        command = shlex.join(["s5-adapters", *sys.argv[1:]])
        outcomes = run_sweep(
            wanted, folder, command=command, timeout=self.timeout, modules=self.modules, say=_say
        )
        failed = [outcome for outcome in outcomes if outcome.result is None]
        if len(failed) < len(outcomes):
            print(f"wrote {write_report(folder)}")
        if failed:
            print(f"{len(failed)} of {len(outcomes)} cells failed; the same command tries them again")
        return 1 if failed else 0

    def _specs(self) -> tuple[Spec, ...]:
        known = {spec.ppo.env_id: spec for spec in specs(self.size)}
        for env_id in self.envs:
            checks.one_of("envs", env_id, list(known))
        chosen = tuple(known[env_id] for env_id in self.envs or known)
        if self.steps is None:
            return chosen
        return tuple(replace(spec, ppo=replace(spec.ppo, total_steps=self.steps)) for spec in chosen)

    def _folder(self) -> Path:
        from s5_adapters.sweeps.machine import machine, machine_slug

        return Path("benchmarks/results") / f"sweep-{self.size}-{machine_slug(machine(self.device))}"


@dataclass(frozen=True)
class Report:
    """Write the report of a sweep's folder anew, from whatever runs it holds."""

    folder: tyro.conf.Positional[Path]
    """Folder of a sweep, with runs/*.json."""

    def run(self) -> int:
        """Write it and say where."""
        from s5_adapters.bench.report import write_report

        print(f"wrote {write_report(self.folder)}")
        return 0


def _say(line: str) -> None:
    print(line, flush=True)
