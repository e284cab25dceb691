"""S5 against MlpLstmPolicy in Stable-Baselines3: time of `train()`, of `collect_rollouts()`, and of a whole
run.

    python benchmarks/sb3.py                    # the grid: 64, 128, 256 x 1, 2, 4 layers
    python benchmarks/sb3.py --steps 200000     # then also whole runs, compile time included
    python benchmarks/sb3.py --widths 64 --layers 1 --rounds 2

Everything runs in turns in one process on velocity-less CartPole, 8 environments x 128 steps, minibatches
of 256, so a ratio holds even on a busy machine. The contender is `S5RecurrentPPO` with two separate
memories, as the LSTM policy has two; the default topology and the stock `RecurrentPPO` are timed beside it.
Exit code 1 below a target.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import jax
import numpy as np
import torch as th
from _common import machine, table, write_json
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from s5_adapters.sb3 import S5RecurrentPPO
from s5_adapters.torch_bridge import settle_jax

NUM_ENVS, NUM_STEPS, BATCH_SIZE, EPOCHS = 8, 128, 256, 2
MOST_TRAIN = 1 / 3
LEAST_COLLECT = {1: 1.0, 4: 2.0}
MOST_WALL_CLOCK = 0.5
MOST_COMPILED = {"s5 segments": 3, "s5 stock": 20}

Contender = tuple[type[RecurrentPPO], str, dict[str, Any]]
CONTENDERS: dict[str, Contender] = {
    "lstm": (RecurrentPPO, "MlpLstmPolicy", {}),
    "s5 segments": (S5RecurrentPPO, "S5Policy", {"enable_critic_lstm": True}),
    "s5 segments, default": (S5RecurrentPPO, "S5Policy", {}),
    "s5 stock": (RecurrentPPO, "S5Policy", {"enable_critic_lstm": True}),
}


class Compilations:
    """The number of programs that XLA compiles, and the seconds that takes."""

    def __init__(self) -> None:
        """Listen from now on."""
        self.count, self.seconds = 0, 0.0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, seconds: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            self.count += 1
            self.seconds += seconds

    def during(self, work: Callable[[], Any]) -> tuple[int, float]:
        """Run `work`; return how many programs were compiled, and in how many seconds."""
        count, seconds = self.count, self.seconds
        work()
        return self.count - count, self.seconds - seconds


class Nothing(BaseCallback):
    """A callback that does nothing."""

    def _on_step(self) -> bool:
        return True


def cartpole_without_velocities() -> gym.Env:
    """Make a CartPole that shows positions only: `(2,)` float32."""
    env = gym.make("CartPole-v1")
    space = gym.spaces.Box(env.observation_space.low[[0, 2]], env.observation_space.high[[0, 2]])
    return gym.wrappers.TransformObservation(env, lambda obs: obs[[0, 2]], space)


def make(name: str, width: int, layers: int, **changes: Any) -> RecurrentPPO:
    """Make a model; all share the environment, the sizes and the hyperparameters."""
    algorithm, policy, own = CONTENDERS[name]
    sizes = {"lstm_hidden_size": width, "n_lstm_layers": layers, "ortho_init": False}
    env = VecNormalize(make_vec_env(cartpole_without_velocities, n_envs=NUM_ENVS, seed=0))
    settings = {
        "n_steps": NUM_STEPS,
        "batch_size": BATCH_SIZE,
        "n_epochs": EPOCHS,
        "learning_rate": 7e-4,
        "gae_lambda": 0.98,
        "max_grad_norm": 1.0,
        "seed": 0,
        "policy_kwargs": {"net_arch": {"pi": [], "vf": [64]}, **sizes, **own},
        **changes,
    }
    return algorithm(policy, env, **settings)


def parameters(model: RecurrentPPO) -> int:
    """Count the numbers that are trained."""
    return sum(parameter.numel() for parameter in model.policy.parameters())


def timed(work: Callable[[], Any]) -> float:
    """Measure the seconds that `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(width: int, layers: int, rounds: int, compilations: Compilations) -> dict[str, dict[str, Any]]:
    """Measure median seconds of a rollout and of an update for every contender, in turns."""
    results: dict[str, dict[str, Any]] = {}
    work: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {}
    for name in CONTENDERS:
        model = make(name, width, layers)
        _, callback = model._setup_learn(10**9, Nothing())

        def collect(model: RecurrentPPO = model, callback: BaseCallback = callback) -> None:
            model.collect_rollouts(model.env, callback, model.rollout_buffer, NUM_STEPS)

        work[name] = collect, model.train
        count, seconds = compilations.during(lambda name=name: [step() for step in work[name]])
        results[name] = {"parameters": parameters(model), "compiled": count, "compile_s": seconds}
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
    for _ in range(rounds):
        for name, (collect, train) in work.items():
            before = compilations.count
            sample = timed(collect), timed(train)
            if compilations.count == before:  # the stock buffer's shapes may still ask for a new program
                samples[name].append(sample)
    for name, pairs in samples.items():
        collect_s, train_s = zip(*pairs, strict=True)
        results[name] |= {"collect_s": statistics.median(collect_s), "train_s": statistics.median(train_s)}
    return results


def grid(
    widths: list[int], layers: list[int], rounds: int, compilations: Compilations, record: Callable[..., Any]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure the table of ratios against the LSTM and the targets missed; record after every size."""
    rows: list[dict[str, Any]] = []
    missed: list[str] = []
    for width in widths:
        for depth in layers:
            results = measure(width, depth, rounds, compilations)
            lstm = results["lstm"]
            for name, result in results.items():
                row = {"policy": name, "width": width, "layers": depth, **result}
                row["train_ratio"] = result["train_s"] / lstm["train_s"]
                row["collect_speedup"] = lstm["collect_s"] / result["collect_s"]
                rows.append(row)
                if name == "s5 segments":
                    if row["train_ratio"] > MOST_TRAIN:
                        missed.append(
                            f"train() at {width} x {depth}: {row['train_ratio']:.2f} of the LSTM's time"
                        )
                    least = LEAST_COLLECT.get(depth, 0.0)
                    if row["collect_speedup"] < least:
                        missed.append(
                            f"collect at {width} x {depth}: {row['collect_speedup']:.2f}, wanted {least}"
                        )
            print(table(HEADER, [cells(row) for row in rows[-len(results) :]]), flush=True)
            record(rows, whole_runs=[], missed=missed)
    return rows, missed


HEADER = (
    "policy",
    "width",
    "layers",
    "parameters",
    "compile s",
    "collect s",
    "train s",
    "collect x",
    "train of",
)


def cells(row: dict[str, Any]) -> list[object]:
    """Return one line of the printed table."""
    return [
        row["policy"],
        row["width"],
        row["layers"],
        row["parameters"],
        f"{row['compile_s']:.1f}",
        f"{row['collect_s']:.3f}",
        f"{row['train_s']:.3f}",
        f"{row['collect_speedup']:.2f}",
        f"{row['train_ratio']:.2f}",
    ]


def whole_runs(steps: int, compilations: Compilations) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure whole runs at 64 x 1, construction and compilation included, and what they learned."""
    rows, missed = [], []
    for name in ("lstm", "s5 segments", "s5 stock"):
        jax.clear_caches()
        count, seconds, model = compilations.count, compilations.seconds, None
        began = time.perf_counter()
        model = make(name, 64, 1, n_epochs=10)
        constructed = compilations.count
        model.learn(steps)
        rows.append(
            {
                "policy": name,
                "steps": steps,
                "wall_clock_s": time.perf_counter() - began,
                "compile_s": compilations.seconds - seconds,
                "compiled_constructing": constructed - count,
                "compiled_learning": compilations.count - constructed,
                "final_return": float(np.mean([episode["r"] for episode in model.ep_info_buffer])),
            }
        )
        print(rows[-1], flush=True)
        most = MOST_COMPILED.get(name)
        if most is not None and rows[-1]["compiled_learning"] > most:
            missed.append(f"{name}: {rows[-1]['compiled_learning']} programs compiled, at most {most} wanted")
    ratio = rows[1]["wall_clock_s"] / rows[0]["wall_clock_s"]
    if ratio > MOST_WALL_CLOCK:
        missed.append(
            f"{steps} steps took {ratio:.2f} of the LSTM's wall-clock, at most {MOST_WALL_CLOCK} wanted"
        )
    return rows, missed


def main() -> int:
    """Measure, print, write the JSON record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--widths", type=int, nargs="*", default=[64, 128, 256])
    parser.add_argument("--layers", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each contender")
    parser.add_argument("--steps", type=int, default=0, help="also whole runs of this many steps")
    options = parser.parse_args()
    th.set_num_threads(1)  # with two, torch and JAX fight for two cores
    settle_jax()  # as building a model does where nothing computed before it, as machine() does
    info, compilations = machine(), Compilations()
    record = functools.partial(write_json, "sb3", info)
    rows, missed = grid(options.widths, options.layers, options.rounds, compilations, record)
    runs: list[dict[str, Any]] = []
    if options.steps:
        runs, more = whole_runs(options.steps, compilations)
        missed += more
    print(record(rows, whole_runs=runs, missed=missed))
    print("\n".join(["below target:", *missed]) if missed else "every target met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
