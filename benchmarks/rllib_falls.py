"""What `examples/rllib_train.py` learns with RLlib's KL penalty, `S5PPOConfig`'s default, and without.

    python benchmarks/rllib_falls.py                 # five seeds: half an hour on two cores

The example's two tasks, its network and PPO settings, a constant learning rate. Reported is the mean return
of RLlib's last iteration, the first iteration that reached 0.9, and the most that was lost of the best return
after it. Runs go in parallel, one a core, and each is recorded when it ends: these are returns, not times.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import sys
from pathlib import Path
from typing import Any

from _common import announce, machine, recorded_rows, table, usable_cores, write_json

ITERATIONS = {"RepeatPreviousEasy": 60, "PositionOnlyCartPoleEasy": 40}
SETTINGS: dict[str, dict[str, Any]] = {
    "KL penalty": {"use_kl_loss": True, "kl_coeff": 0.2, "kl_target": 0.01},
    "none": {"use_kl_loss": False},
}
BAR = 0.9

Job = tuple[str, str, int]


def run(job: Job) -> dict[str, Any]:
    """Train once, in a process of its own."""
    import ray
    import torch

    sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
    import rllib_train

    torch.set_num_threads(1)
    env, setting, seed = job
    ray.init(num_cpus=1, include_dashboard=False, address="local", log_to_driver=False, logging_level="error")
    config = rllib_train.new_stack(env, 0).debugging(seed=seed).training(**SETTINGS[setting])
    algo = config.build_algo()
    curve = [
        round(float(algo.train()["env_runners"].get("episode_return_mean", float("nan"))), 3)
        for _ in range(ITERATIONS[env])
    ]
    algo.stop()
    ray.shutdown()
    return {"env": env, "setting": setting, "seed": seed, **summary(curve), "curve": curve}


def summary(curve: list[float]) -> dict[str, Any]:
    """Sum up a run's returns, an iteration each."""
    reached = next((i for i, mean in enumerate(curve) if mean >= BAR), None)
    after = [] if reached is None else curve[reached:]
    falls = [best - mean for best, mean in zip(itertools.accumulate(after, max), after, strict=True)]
    return {
        "end": curve[-1],
        "reached_after": None if reached is None else reached + 1,
        "largest_fall": round(max(falls), 3) if falls else None,
    }


def main() -> None:
    """Train everything, print, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--envs", nargs="+", choices=ITERATIONS, default=list(ITERATIONS))
    options = parser.parse_args()
    info = machine()
    announce(info)
    rows: list[dict[str, Any]] = []
    jobs = list(itertools.product(options.envs, SETTINGS, options.seeds))
    with multiprocessing.get_context("spawn").Pool(usable_cores(), maxtasksperchild=1) as pool:
        for row in pool.imap_unordered(run, jobs, chunksize=1):
            rows.append(row)
            print({name: value for name, value in row.items() if name != "curve"}, flush=True)
            kept = recorded_rows("rllib-falls", info, rows, ["env", "setting", "seed"])
            write_json("rllib-falls", info, [*kept, *rows])
    lines = []
    for wanted in itertools.product(options.envs, SETTINGS):
        cells = [row for seed in options.seeds for row in rows if (*wanted, seed) == _job(row)]
        for column in ("end", "reached_after", "largest_fall"):
            lines.append([*wanted, column, *(str(row[column]) for row in cells)])
    print(table(["env", "", "", *map(str, options.seeds)], lines))


def _job(row: dict[str, Any]) -> Job:
    return row["env"], row["setting"], row["seed"]


if __name__ == "__main__":
    main()
