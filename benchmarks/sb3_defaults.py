"""Which defaults of `S5Policy` learn best: one memory or two, which initial time steps.

    python benchmarks/sb3_defaults.py                # 3 seeds: about ten minutes on two cores
    python benchmarks/sb3_defaults.py --seeds 0 1 2 3 4 --fraction 0.5

The settings are those of the two examples, velocity-less CartPole and RepeatPreviousEasy, under
`S5RecurrentPPO` with two layers; nothing but the named arguments differs. Reported is the mean return after
training, on fresh episodes, seed by seed. Runs go in parallel, one a core: these are returns, not times.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import multiprocessing
import statistics
import sys
from pathlib import Path
from typing import Any

from _common import machine, table, usable_cores, write_json

EXAMPLES = Path(__file__).parent.parent / "examples"
STEPS = {"sb3_cartpole": 50_000, "sb3_repeat_previous": 200_000}
TIME_STEPS = {"0.01 to 1.0": (0.01, 1.0), "0.001 to 0.1": (0.001, 0.1)}
TOPOLOGIES = ("shared", "separate")

Job = tuple[str, str, str, int, int]


def run(job: Job) -> dict[str, Any]:
    """Train once, in a process of its own."""
    import torch

    torch.set_num_threads(1)
    name, topology, time_steps, seed, steps = job
    sys.path.insert(0, str(EXAMPLES))
    example = importlib.import_module(name)
    dt_min, dt_max = TIME_STEPS[time_steps]
    kwargs = {"n_lstm_layers": 2, "critic_memory": topology, "dt_min": dt_min, "dt_max": dt_max}
    kwargs |= {"lr_scales": {}, "dynamics_lr_scale": 1.0}  # the defaults when this was measured
    score, _ = example.train("S5Policy", steps, seed, **kwargs)
    return {
        "example": name,
        "critic_memory": topology,
        "time_steps": time_steps,
        "seed": seed,
        "steps": steps,
        "return": round(score, 3),
    }


def main() -> None:
    """Train everything, print, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--fraction", type=float, default=1.0, help="of the number of steps")
    options = parser.parse_args()
    info = machine()
    jobs = [
        (name, topology, time_steps, seed, int(STEPS[name] * options.fraction))
        for name, topology, time_steps, seed in itertools.product(
            STEPS, TOPOLOGIES, TIME_STEPS, options.seeds
        )
    ]
    rows: list[dict[str, Any]] = []
    with multiprocessing.get_context("spawn").Pool(usable_cores(), maxtasksperchild=1) as pool:
        for row in pool.imap(run, jobs, chunksize=1):
            rows.append(row)
            print(row, flush=True)
            write_json("sb3-defaults", info, rows)
    lines = []
    for name, topology, time_steps in itertools.product(STEPS, TOPOLOGIES, TIME_STEPS):
        wanted = (name, topology, time_steps)
        returns = [
            row["return"]
            for row in rows
            if (row["example"], row["critic_memory"], row["time_steps"]) == wanted
        ]
        lines.append([*wanted, f"{statistics.mean(returns):.2f}", *returns])
    print(table(["example", "critic_memory", "dt", "mean", *map(str, options.seeds)], lines))


if __name__ == "__main__":
    main()
