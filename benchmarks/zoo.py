"""rl-baselines3-zoo's velocity-less environments with its tuned ppo_lstm hyperparameters: S5Policy and
MlpLstmPolicy.

    python benchmarks/zoo.py                         # the tuned numbers of steps: hours
    python benchmarks/zoo.py --fraction 0.2 --envs CartPoleNoVel-v1

The zoo's own command line trains; nothing but the policy's name differs. Reported are the last evaluation's
mean return (20 episodes) and the seconds of the whole command, compile time included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _common import machine, table, write_json

TUNED_STEPS = {
    "CartPoleNoVel-v1": 100_000,
    "PendulumNoVel-v1": 100_000,
    "MountainCarContinuousNoVel-v0": 300_000,
}
POLICIES = ("MlpLstmPolicy", "S5Policy")


def train(env_id: str, policy: str, steps: int, seed: int) -> dict[str, Any]:
    """Run the zoo once; return the last evaluation's mean and standard deviation, and the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "rl_zoo3.train", "--algo", "ppo_lstm", "--env", env_id),
            *("--gym-packages", "s5_adapters.sb3", "--hyperparams", f"policy:'{policy}'"),
            *("--n-timesteps", str(steps), "--seed", str(seed), "--device", "cpu", "--num-threads", "1"),
            *("--eval-freq", str(max(steps // 4, 1)), "--eval-episodes", "20", "--n-eval-envs", "4"),
            *("--log-folder", folder, "--verbose", "0"),
        ]
        began = time.perf_counter()
        subprocess.run(
            command,
            check=True,
            cwd=folder,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.DEVNULL,
        )
        seconds = time.perf_counter() - began
        (found,) = Path(folder).glob("ppo_lstm/*/evaluations.npz")
        returns = np.load(found)["results"][-1]
    return {
        "env": env_id,
        "policy": policy,
        "steps": steps,
        "seed": seed,
        "return": float(returns.mean()),
        "return_std": float(returns.std()),
        "seconds": seconds,
    }


def main() -> int:
    """Train everything, print, write the JSON record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--envs", nargs="*", default=list(TUNED_STEPS), choices=list(TUNED_STEPS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--fraction", type=float, default=1.0, help="of the tuned number of steps")
    options = parser.parse_args()
    info, rows = machine(), []
    for env_id in options.envs:
        for seed in options.seeds:
            for policy in POLICIES:
                rows.append(train(env_id, policy, int(TUNED_STEPS[env_id] * options.fraction), seed))
                write_json("zoo", info, rows)
                print(rows[-1], flush=True)
    header = ("env", "policy", "steps", "seed", "return", "seconds")
    print(table(header, [[row[k] if k != "return" else f"{row[k]:.1f}" for k in header] for row in rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
