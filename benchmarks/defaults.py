"""Which depth and which initial time steps of S5 learn best: the measurement behind the defaults.

    python benchmarks/defaults.py               # five seeds a cell; cells that are recorded are not run again
    python benchmarks/defaults.py --tasks MemoryChain-bsuite --seeds 5

Every task runs in the jitted trainer with its default hyperparameters, all seeds of a cell in one
program; nothing but the named fields differs, and `target_kl`, which came later, is off. Per seed it
reports the mean return of the episodes that ended in the last tenth of the updates, and the largest fall
of a running mean (a twentieth of the updates) below its own best. These are returns, not times: a busy
machine does no harm.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from typing import Any

import jax
import numpy as np
from _common import announce, machine, recorded_rows, table, write_json

from s5_adapters.purejax import PPOConfig, make_train
from s5_adapters.sweeps.curves import largest_fall

TASKS: dict[str, dict[str, Any]] = {
    "RepeatPreviousEasy": {"env_id": "RepeatPreviousEasy", "total_steps": 500_000},
    "PositionOnlyCartPoleEasy": {"env_id": "PositionOnlyCartPoleEasy", "total_steps": 500_000},
    # 101 steps an episode, so that a rollout of 104 holds the whole wait.
    "MemoryChain-bsuite": {
        "env_id": "MemoryChain-bsuite",
        "env_kwargs": {"memory_length": 100},
        "total_steps": 1_000_000,
    },
}
LAYERS = (1, 2)
TIME_STEPS = ((0.001, 0.1), (0.003, 0.3), (0.01, 1.0), (0.001, 1.0))
KEY = ("task", "n_layers", "dt_min", "dt_max")


def measure(task: str, n_layers: int, dt_min: float, dt_max: float, seeds: int) -> dict[str, Any]:
    """Train all seeds of a cell in one program."""
    memory_config = {"d_model": 64, "n_layers": n_layers, "dt_min": dt_min, "dt_max": dt_max}
    memory_config |= {"clip_eigenvalues": False}
    config = PPOConfig(**TASKS[task], memory_config=memory_config, target_kl=None)
    keys = jax.vmap(jax.random.key)(np.arange(seeds))
    history = np.asarray(jax.jit(jax.vmap(make_train(config)))(keys).metrics["episode_return"])
    finals, falls = [], []
    for returns in history:
        ended = returns[~np.isnan(returns)]
        finals.append(round(float(ended[-max(1, len(ended) // 10) :].mean()), 3))
        falls.append(round(largest_fall(ended, max(1, len(ended) // 20)), 3))
    return {
        "task": task,
        "n_layers": n_layers,
        "dt_min": dt_min,
        "dt_max": dt_max,
        "returns": finals,
        "falls": falls,
        "steps": config.total_steps,
    }


def show(rows: list[dict[str, Any]]) -> str:
    """Format one line per cell, with every seed."""
    lines = [
        [
            row["task"],
            row["n_layers"],
            f"{row['dt_min']:g} to {row['dt_max']:g}",
            f"{statistics.mean(row['returns']):.3f}",
            f"{min(row['returns']):.3f}",
            " ".join(f"{value:.3f}" for value in row["returns"]),
            f"{statistics.median(row['falls']):.3f}",
        ]
        for row in rows
    ]
    return table(["task", "layers", "dt", "mean", "worst", "every seed", "median fall"], lines)


def main() -> int:
    """Run what is not recorded yet, print, record after every cell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    info = machine()
    announce(info)
    rows = recorded_rows("defaults", info, [], KEY)
    done = {tuple(row[name] for name in KEY) for row in rows if len(row["returns"]) >= options.seeds}
    for task, n_layers, (dt_min, dt_max) in itertools.product(options.tasks, LAYERS, TIME_STEPS):
        if (task, n_layers, dt_min, dt_max) in done:
            continue
        row = measure(task, n_layers, dt_min, dt_max, options.seeds)
        print(show([row]), flush=True)
        rows = sorted([*recorded_rows("defaults", info, [row], KEY), row], key=lambda r: [r[k] for k in KEY])
        write_json("defaults", info, rows)
    print(show(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
