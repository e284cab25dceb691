"""The jitted trainer: S5 against the other memories, the published network, and another program.

    python benchmarks/trainer.py                                  # everything but the other program
    python benchmarks/trainer.py --baseline path/to/jitted_ppo.py # beside it
    python benchmarks/trainer.py --parts memories --memories s5 gru lstm attention --match-params
    python benchmarks/trainer.py --parts memories --width 64 --layers 2 --lengths 128 1024 4096

"memories": one whole update (the rollout, then all epochs over it) and the rollout alone, with S5 and with
each other memory at equal width and depth (or, with --match-params, at S5's number of parameters) and
rollouts of 1,024 steps. Programs take turns, so their ratios hold even on a busy machine. A ratio is a
memory's time over S5's: above 1, S5 is faster.

"published": the published network, 4 layers of 256, encoder [128, 256], torsos [128, 128], at 32 environments
x 104 steps, 4 epochs x 4 minibatches, with products of float32 and of bfloat16 factors: environment steps a
second, and seconds to compile.

"baseline": a program that trains S5 of 2 layers of 64 on the same task at the same sizes and prints "sps N"
last; it runs in turns with ours.

"precision": what rounding the factors of matrix products does to learning: the demo's setting with
`precision="float32"` and `"bfloat16"`, the mean return of fresh episodes after training, seed by seed.

All on RepeatPreviousEasy; compile time stands apart. The exit code is 1 where a figure misses its target.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import operator
import re
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from _common import (
    announce,
    compile_cost,
    interleaved_medians,
    machine,
    recorded_rows,
    table,
    verdict,
    write_json,
)

from s5_adapters.core import make_memory, memory_names
from s5_adapters.core.memories.defaults import complete
from s5_adapters.core.memories.matching import count_params, match_params
from s5_adapters.demo import CONFIGS
from s5_adapters.purejax import Evaluator, PPOConfig, build_problem, make_train
from s5_adapters.purejax.rollout import collect
from s5_adapters.purejax.training import Programs, update_step

OURS = "s5"
PARTS = ("memories", "published", "baseline", "precision")
NUM_ENVS, NUM_EPOCHS, NUM_MINIBATCHES = 8, 4, 2
SETTINGS = ((2, 64), (4, 256))
LENGTH = 1024
RATIO_TARGETS = {("gru", 2, 64): 1.8, ("gru", 4, 256): 3.0}
"""Least time of an update over S5's, by memory, layers and width, at rollouts of 1,024 steps."""
SPEED_TARGET, COMPILE_TARGET = 6000, 10.0
"""With the published network: least environment steps a second, most seconds to compile."""
BASELINE_TARGET = 1.1
"""Least environment steps a second over the other program's."""
BASELINE_STEPS, BASELINE_ROUNDS = 500_000, 3
PRECISIONS = ("float32", "bfloat16")
PRECISION_SEEDS, PRECISION_EPISODES = 5, 512


def config_of(memory: str, width: int, layers: int, length: int, *, matched: bool = False) -> PPOConfig:
    """Return the trainer's defaults with this memory, width, depth and rollout length."""
    memory_config = {"d_model": width, "n_layers": layers}
    if memory == OURS:
        memory_config["d_state"] = width
    elif matched:
        target = count_params(make_memory(OURS, **memory_config, d_state=width), width)
        memory_config = match_params(memory, complete(memory, memory_config), target=target, width=width)
    return PPOConfig(
        env_id="RepeatPreviousEasy",
        memory=memory,
        memory_config=memory_config,
        encoder=(width,),
        num_envs=NUM_ENVS,
        num_steps=length,
        num_epochs=NUM_EPOCHS,
        num_minibatches=NUM_MINIBATCHES,
        total_steps=100 * NUM_ENVS * length,
    )


def measure_memories(
    memories: list[str], layers: int, width: int, length: int, rounds: int, matched: bool
) -> list[dict[str, Any]]:
    """Measure one row per memory: seconds of an update and of its rollout, ratios to S5, compiling."""
    calls, rows = {}, {}
    for memory in memories:
        config = config_of(memory, width, layers, length, matched=matched)
        problem = build_problem(config)
        state = config.init_state(problem, jax.random.key(0), jnp.float32(config.learning_rate))
        update, seconds, scratch = compile_cost(functools.partial(update_step, problem, config), state)
        rollout, _, _ = compile_cost(
            functools.partial(collect, problem, config), state.params, state.carry, state.key
        )
        calls[memory, "update"] = functools.partial(update, state)
        calls[memory, "rollout"] = functools.partial(rollout, state.params, state.carry, state.key)
        rows[memory] = {
            "part": "memories",
            "memory": memory,
            "width": config.memory_config["d_model"],
            "layers": layers,
            "length": length,
            "num_envs": NUM_ENVS,
            "num_epochs": NUM_EPOCHS,
            "matched": matched,
            "memory_params": sum(leaf.size for leaf in jax.tree.leaves(state.params["trunk"]["memory"])),
            "compile_s": round(seconds, 2),
            "scratch_bytes": scratch,
        }
    medians = interleaved_medians({" ".join(key): call for key, call in calls.items()}, rounds=rounds)
    for memory, row in rows.items():
        update_s, rollout_s = medians[f"{memory} update"], medians[f"{memory} rollout"]
        row |= {
            "update_s": update_s,
            "rollout_s": rollout_s,
            "learning_s": update_s - rollout_s,
            "env_steps_per_s": round(NUM_ENVS * length / update_s),
        }
    for row in rows.values():
        for part in ("update", "rollout", "learning"):
            row[f"{part}_ratio"] = round(row[f"{part}_s"] / rows[OURS][f"{part}_s"], 2)
        wanted = length == LENGTH and not matched
        row["target"] = RATIO_TARGETS.get((row["memory"], layers, width)) if wanted else None
    return list(rows.values())


def show_memories(rows: list[dict[str, Any]]) -> str:
    """Format the rows as a table."""
    header = ["memory", "size", "rollout steps", "env-steps/s", "update s", "ratio", "target"]
    header += ["rollout ratio", "learning ratio", "compile s", "scratch MiB", "memory params"]
    lines = [
        [
            row["memory"],
            f"{row['layers']} x {row['width']}",
            row["length"],
            row["env_steps_per_s"],
            f"{row['update_s']:.2f}",
            f"{row['update_ratio']:.2f}",
            row["target"] or "-",
            f"{row['rollout_ratio']:.2f}",
            f"{row['learning_ratio']:.2f}",
            f"{row['compile_s']:.1f}",
            f"{row['scratch_bytes'] / 2**20:.1f}",
            row["memory_params"],
        ]
        for row in rows
    ]
    return table(header, lines)


class Run:
    """A training run of the trainer's own program, as ``Trainer`` drives it."""

    def __init__(self, **settings: Any):
        self.config = PPOConfig(env_id="RepeatPreviousEasy", total_steps=10**9, **settings)
        self.programs = Programs.of(self.config)
        rate = jnp.float32(self.config.learning_rate)
        self.state = self.programs.init_state(jax.random.key(0), rate)
        began = time.perf_counter()
        self._advance(0)
        self.compile_s = time.perf_counter() - began

    def _advance(self, updates: int) -> None:
        self.state, metrics = self.programs.run_chunk(self.state, jnp.int32(updates), buffer_size=64)
        jax.block_until_ready(metrics)

    def speed(self, updates: int) -> float:
        """Measure environment steps per second over that many updates."""
        began = time.perf_counter()
        self._advance(updates)
        return updates * self.config.steps_per_update / (time.perf_counter() - began)


def measure_published(rounds: int, precision: str) -> dict[str, Any]:
    """Measure speed and compile time with the published network."""
    paper = PPOConfig.paper()
    run = Run(
        memory_config=dict(paper.memory_config),
        encoder=paper.encoder,
        actor_torso=paper.actor_torso,
        critic_torso=paper.critic_torso,
        num_envs=32,
        num_steps=104,
        num_epochs=4,
        num_minibatches=4,
        precision=precision,
    )
    run.speed(1)
    speeds = [run.speed(4) for _ in range(rounds)]
    return {
        "part": "published",
        "precision": precision,
        "env_steps_per_s": round(statistics.median(speeds)),
        "speed_target": SPEED_TARGET,
        "compile_s": round(run.compile_s, 1),
        "compile_target": COMPILE_TARGET,
    }


def measure_baseline(program: Path) -> dict[str, Any]:
    """Measure speed at 2 x 64 in turns with the other program's, each warm."""
    run = Run(num_envs=32, num_steps=104, num_epochs=4, num_minibatches=4)
    run.speed(5)
    command = [sys.executable, str(program), "64", "2", "32", "104", "4", "4", "1e-3", str(BASELINE_STEPS)]
    theirs, ours = [], []
    for _ in range(BASELINE_ROUNDS):
        output = subprocess.run([*command, "4", "52"], check=True, capture_output=True, text=True).stdout
        theirs.append(float(re.findall(r"sps (\d+)", output)[-1]))
        ours.append(run.speed(64))
    ratio = statistics.median(ours) / statistics.median(theirs)
    return {
        "part": "baseline",
        "program": program.name,
        "env_steps_per_s": round(statistics.median(ours)),
        "baseline_env_steps_per_s": round(statistics.median(theirs)),
        "ratio": round(ratio, 2),
        "target": BASELINE_TARGET,
        "compile_s": round(run.compile_s, 1),
    }


def measure_precision() -> list[dict[str, Any]]:
    """Measure one row per precision: the mean return of fresh episodes after training, of each seed."""
    rows = []
    for precision in PRECISIONS:
        config = replace(CONFIGS[OURS], precision=precision)
        train = jax.jit(jax.vmap(make_train(config)))
        result = train(jax.random.split(jax.random.key(0), PRECISION_SEEDS))
        evaluate = Evaluator(build_problem(config), PRECISION_EPISODES)
        returns = []
        for seed in range(PRECISION_SEEDS):
            params = jax.tree.map(operator.itemgetter(seed), result.state.params)
            returns.append(round(evaluate(params, None, jax.random.key(seed)).mean, 4))
        row = {"part": "precision", "precision": precision, "steps": config.total_steps, "returns": returns}
        rows.append(row | {"mean_return": round(statistics.mean(returns), 4)})
        print("precision {precision}: mean return {mean_return} of {returns}".format(**rows[-1]), flush=True)
    return rows


def missed_targets(rows: list[dict[str, Any]]) -> list[str]:
    """Return one line for each figure that misses its target."""
    missed = []
    for row in rows:
        if row["part"] == "memories" and row["target"] and row["update_ratio"] < row["target"]:
            size = f"{row['layers']} x {row['width']}"
            missed.append(f"{row['memory']} {size}: {row['update_ratio']}, at least {row['target']}")
        if row["part"] == "published":
            name = f"published network, {row['precision']}"
            if row["env_steps_per_s"] < SPEED_TARGET:
                missed.append(f"{name}: {row['env_steps_per_s']} env-steps/s, at least {SPEED_TARGET}")
            if row["compile_s"] > COMPILE_TARGET:
                missed.append(f"{name}: {row['compile_s']} s to compile, at most {COMPILE_TARGET}")
        if row["part"] == "baseline" and row["ratio"] < BASELINE_TARGET:
            missed.append(f"{row['program']}: {row['ratio']} times its speed, at least {BASELINE_TARGET}")
    return missed


def main() -> int:
    """Measure, print, record; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, help="what to measure (default: all that can be)"
    )
    parser.add_argument("--memories", nargs="+", default=[OURS, "gru"], choices=memory_names())
    parser.add_argument("--width", type=int, help="d_model and d_state (default: 64, and 256 with 4 layers)")
    parser.add_argument("--layers", type=int, help="layers of the memory (default: 2, and 4 with width 256)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[LENGTH], help="steps per rollout")
    parser.add_argument("--match-params", action="store_true", help="widen the others to S5's parameters")
    parser.add_argument("--baseline", type=Path, help="the other program")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved samples per median (default 5)")
    parser.add_argument("--quick", action="store_true", help="three rounds, nothing recorded")
    options = parser.parse_args()
    info = machine()
    if (options.width is None) != (options.layers is None):
        parser.error("--width and --layers go together")
    left_out = {"baseline"} if options.baseline is None else set()
    parts = options.parts or [part for part in PARTS if part not in left_out]
    if "baseline" in parts and options.baseline is None:
        parser.error("the part baseline needs --baseline PATH")
    memories = [OURS, *[name for name in options.memories if name != OURS]]
    settings = SETTINGS if options.width is None else ((options.layers, options.width),)
    rounds = 3 if options.quick else options.rounds

    announce(info)
    rows: list[dict[str, Any]] = []

    def record(more: list[dict[str, Any]]) -> None:
        """Write the measurements so far: a run that is cut short keeps them."""
        rows.extend(row | {"date": info["date"]} for row in more)
        if not options.quick:
            key = ("part", "memory", "layers", "width", "length", "matched", "precision")
            kept = recorded_rows("trainer", info, rows, key)
            print(f"written: {write_json('trainer', info, [*kept, *rows], rounds=rounds)}", file=sys.stderr)

    if "baseline" in parts:
        record([measure_baseline(options.baseline)])
        print(
            "{program}: {baseline_env_steps_per_s} env-steps/s, ours {env_steps_per_s}, ".format(**rows[-1])
        )
        print("ratio {ratio} (target: at least {target}), compiled in {compile_s} s\n".format(**rows[-1]))
    if "published" in parts:
        for precision in PRECISIONS:
            record([measure_published(rounds, precision)])
            print(
                "published network, {precision}: {env_steps_per_s} env-steps/s (target: at least "
                "{speed_target}), compiled in {compile_s} s (target: at most {compile_target})".format(
                    **rows[-1]
                ),
                flush=True,
            )
        print()
    if "memories" in parts:
        compared: list[dict[str, Any]] = []
        for (layers, width), length in itertools.product(settings, options.lengths):
            measured = measure_memories(memories, layers, width, length, rounds, options.match_params)
            record(measured)
            compared += measured
        print(show_memories(compared))
    if "precision" in parts:
        record(measure_precision())
    return verdict(missed_targets(rows))


if __name__ == "__main__":
    sys.exit(main())
