"""What policies learn in their first gradient steps behind masks: sb3-contrib's own test, seed by seed.

    python benchmarks/masks.py                       # 5 seeds: about five minutes on two cores

Task and settings are `test_identity`'s of sb3-contrib's `tests/test_invalid_actions.py`: name the observed
one of 70 actions of which 55 are forbidden in every step, 100 steps an episode, where random play scores 6;
the test asks a feedforward policy for 90 after 2,048 steps, which are 64 gradient steps. Nothing needs to be
remembered, so what a memory adds here is noise that it has to learn to ignore. Reported is the mean return of
20 episodes. Runs go in parallel, one a core: these are returns, not times.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import statistics
from typing import Any

from _common import machine, recorded_rows, table, usable_cores, write_json

POLICIES = ("MlpPolicy of MaskablePPO", "s5", "gru", "lstm")
STEPS = (2_048, 4_096)

Job = tuple[str, int, int]


def run(job: Job) -> dict[str, Any]:
    """Train once, in a process of its own."""
    import torch
    from sb3_contrib import MaskablePPO
    from sb3_contrib.common.envs import InvalidActionEnvDiscrete
    from sb3_contrib.common.maskable.evaluation import evaluate_policy

    from s5_adapters.sb3 import S5MaskableRecurrentPPO

    torch.set_num_threads(1)
    policy, steps, seed = job
    env = InvalidActionEnvDiscrete(dim=70, n_invalid_actions=55)
    settings: dict[str, Any] = {"gamma": 0.1, "seed": seed, "clip_range": 0.4, "n_epochs": 2}
    if policy == POLICIES[0]:
        model: Any = MaskablePPO("MlpPolicy", env, **settings)
    else:
        model = S5MaskableRecurrentPPO("S5Policy", env, policy_kwargs={"memory": policy}, **settings)
    model.learn(steps)
    score, _ = evaluate_policy(model, env, n_eval_episodes=20, warn=False)
    return {"policy": policy, "steps": steps, "seed": seed, "return": round(float(score), 2)}


def main() -> None:
    """Train everything, print, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[32, 1, 2, 3, 4])
    options = parser.parse_args()
    info = machine()
    jobs = list(itertools.product(POLICIES, STEPS, options.seeds))
    rows: list[dict[str, Any]] = []
    with multiprocessing.get_context("spawn").Pool(usable_cores()) as pool:
        for row in pool.imap(run, jobs, chunksize=1):
            rows.append(row)
            print(row, flush=True)
    write_json("masks", info, [*recorded_rows("masks", info, rows, ["policy", "steps", "seed"]), *rows])
    lines = []
    for wanted in itertools.product(POLICIES, STEPS):
        returns = [row["return"] for row in rows if (row["policy"], row["steps"]) == wanted]
        lines.append([*wanted, f"{statistics.mean(returns):.1f}", *returns])
    print(table(["policy", "steps", "mean", *map(str, options.seeds)], lines))


if __name__ == "__main__":
    main()
