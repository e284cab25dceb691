"""What splitting a run over devices costs: exchanges and bytes, memory per device, guards, a long soak.

    python benchmarks/scaling.py                     bytes, memory and guards, recorded
    python benchmarks/scaling.py --parts soak        20,000 updates of a tiny run, 2,000 of the demo's

Without accelerators the devices are virtual ones of the CPU. What is counted on them holds for any device:
programs, exchanges, bytes, memory. Their speed says nothing about scaling, so it is measured on real devices
alone.

`bytes`: the exchanges in the compiled update, multiplied by the loops that they are in, and what XLA has
planned per device for the same total batch; then the efficiency at 8, 64 and 512 accelerators that bytes and
the links below give, each with as many environments as the one A100 and the one H200 had that were timed.
`guards`: an update with and without them, in turns. `speed`: weak scaling. `soak`: resident memory and time
per update along a run.
"""

from __future__ import annotations

import os

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"

import argparse
import contextlib
import functools
import re
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import _common
import jax
import jax.numpy as jnp
import numpy as np

from s5_adapters.demo import CONFIGS
from s5_adapters.purejax import PPOConfig, Trainer, build_problem
from s5_adapters.purejax.algorithms import algorithm, metrics
from s5_adapters.purejax.progress import Silent, Status
from s5_adapters.purejax.split import Split
from s5_adapters.purejax.split_programs import SplitPrograms
from s5_adapters.purejax.training import update_step

PARTS = ("bytes", "guards", "speed", "soak")
DEVICES = (1, 2, 4, 8)
GUARDS_TARGET = 1.03
"""An update with guards over one without."""
PUBLISHED = PPOConfig.paper(env_id="RepeatPreviousEasy", normalize_observations=True, total_steps=10**9)
PUBLISHED_SECONDS = {"A100": 298 / 228, "H200": 65_536 / 165_791}
"""Of an update of the published size on one of them, observations as they are: the authors' 298 s for 228
updates, and this repository's steps a second in TF32 (benchmarks/results/gpu-gpu-nvidia-h200.json)."""
TINY = PPOConfig(
    env_id="RepeatPreviousEasy",
    memory_config={"d_model": 8, "d_state": 8, "n_layers": 1},
    encoder=(8,),
    actor_torso=(8,),
    critic_torso=(8,),
    num_envs=8,
    num_steps=16,
    num_epochs=1,
    num_minibatches=1,
    total_steps=10**9,
)
SIZES = {
    "tiny": replace(TINY, num_envs=32, num_minibatches=2, num_epochs=2, normalize_observations=True),
    "published": PUBLISHED,
    "65,536 environments": replace(
        PUBLISHED, num_envs=65_536, num_steps=128, num_epochs=1, num_minibatches=32
    ),
}
LINKS = {8: (400e9, 15e-6), 64: (50e9, 40e-6), 512: (50e9, 70e-6)}
"""Bytes a second and seconds of a small sum over so many accelerators: NVLink 4 within a node of 8, then a
400 Gb/s InfiniBand port each. Stated, not measured here."""
SOAKS = {"tiny": (TINY, 20_000), "demo": (CONFIGS["s5"], 2_000)}
SOAK_POINTS = 20
_SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "f64": 8}
_KINDS = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"


def exchanges(program: str) -> list[tuple[str, int, int]]:
    """Return kind, times in an update, and bytes at once of every exchange in a compiled chunk.

    A loop's times are those that XLA knows; the loop over updates, whose number is an argument, counts once.
    """
    computations = re.findall(r"^(ENTRY )?%?([\w.\-]+) [^\n]*\{\n(.*?)^\}", program, re.MULTILINE | re.DOTALL)
    bodies = {name: body for _, name, body in computations}
    entry = next(name for first, name, _ in computations if first)
    times: dict[str, int] = defaultdict(int)

    def visit(name: str, count: int) -> None:
        times[name] += count
        for line in bodies[name].splitlines():
            known = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
            loops = int(known.group(1)) if known and " while(" in line else 1
            called = re.findall(
                r"(?:body|to_apply|calls|branch_computations)=\{?((?:%?[\w.\-]+(?:, )?)+)", line
            )
            for other in (part.strip(" %") for names in called for part in names.split(",")):
                if other in bodies:
                    visit(other, count * loops)

    visit(entry, 1)
    found = []
    for name, count in times.items():
        for line in bodies[name].splitlines():
            match = re.search(rf" = (.*?) ({_KINDS})(?:-start)?\(", line)
            if match:
                arrays = re.findall(r"(\w+)\[([\d,]*)\]", match.group(1))
                size = sum(
                    _SIZES[kind] * int(np.prod([int(n) for n in shape.split(",") if n]))
                    for kind, shape in arrays
                    if kind in _SIZES
                )
                found.append((match.group(2), count, size))
    return found


def measure_bytes(name: str, config: PPOConfig, counts: list[int]) -> list[dict[str, Any]]:
    """Count one row per number of devices: exchanges and bytes of an update, memory per device."""
    rows = []
    for devices in counts:
        programs = SplitPrograms.of(config, Split(devices, devices))
        state = jax.eval_shape(programs.init_state, jax.random.key(0), jnp.float32(0))
        began = time.perf_counter()
        compiled = programs.run_chunk.lower(state, jnp.int32(1), buffer_size=1).compile()
        seconds = time.perf_counter() - began
        planned = compiled.memory_analysis()
        found = exchanges(compiled.as_text()) if devices > 1 else []
        rows.append(
            {
                "part": "bytes",
                "size": name,
                "devices": devices,
                "num_envs": config.num_envs,
                "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
                "gradient_steps": config.gradient_steps,
                "kinds": sorted({kind for kind, _, _ in found}),
                "exchanges": sum(count for _, count, _ in found),
                "bytes": sum(count * size for _, count, size in found),
                "memory_per_device": planned.temp_size_in_bytes + planned.argument_size_in_bytes,
                "compile_s": round(seconds, 1),
            }
        )
        print(
            "{size}, {devices} devices: {exchanges} exchanges, {bytes} bytes".format(**rows[-1]), flush=True
        )
    return rows


def predict(row: dict[str, Any], config: PPOConfig, seconds: float, accelerator: str) -> list[dict[str, Any]]:
    """Predict one row per number of accelerators, each with as many environments as took one ``seconds``."""
    rows = []
    for devices, (speed, latency) in LINKS.items():
        gradients = config.gradient_steps * 2 * latency  # gradients with metrics, and advantages
        statistics = config.num_steps * latency * (config.normalize_observations + config.normalize_rewards)
        moved = 2 * (devices - 1) / devices * 4 * row["parameters"] * config.gradient_steps / speed
        crossing = gradients + statistics + moved
        rows.append(
            {
                "part": "predicted",
                "size": row["size"],
                "accelerator": accelerator,
                "devices": devices,
                "num_envs": config.num_envs * devices,
                "update_s": round(seconds, 3),
                "crossing_s": round(crossing, 4),
                "efficiency": round(seconds / (seconds + crossing), 3),
                # The same environments in all, where there are enough, and compute that divides without loss.
                "efficiency_same_total": (
                    round(seconds / devices / (seconds / devices + crossing), 3)
                    if config.num_envs % (devices * config.num_minibatches) == 0
                    else None
                ),
            }
        )
    return rows


def measure_guards(rounds: int) -> dict[str, Any]:
    """Measure an update with its guards and without, in turns."""
    calls = {}
    for name in ("with", "without"):
        config = replace(CONFIGS["s5"], gamma=0.99 if name == "with" else 0.9900001)  # another trace
        problem = build_problem(config)
        state = config.init_state(problem, jax.random.key(0), jnp.float32(config.learning_rate))
        with contextlib.ExitStack() as stack:
            if name == "without":
                # Without its one reader the compiler drops the finiteness of every observation and reward.
                stack.enter_context(mock.patch.object(metrics, "_first_not_finite", _nowhere))
                stack.enter_context(mock.patch.object(algorithm, "find_fault", _no_fault))
            update, _, _ = _common.compile_cost(functools.partial(update_step, problem, config), state)
        calls[name] = functools.partial(update, state)
    medians = _common.interleaved_medians(calls, rounds=rounds)
    ratio = medians["with"] / medians["without"]
    return {
        "part": "guards",
        "update_s": medians["with"],
        "unguarded_s": medians["without"],
        "ratio": round(ratio, 4),
        "target": GUARDS_TARGET,
    }


def _no_fault(*_: Any) -> jax.Array:
    return jnp.int32(-1)


def _nowhere(*_: Any) -> tuple[jax.Array, jax.Array]:
    return jnp.int32(-1), jnp.int32(-1)


def measure_speed(config: PPOConfig, rounds: int) -> list[dict[str, Any]]:
    """Measure weak scaling on real devices: one row per number of them, each with the same environments."""
    rows = []
    for devices in (n for n in DEVICES if n <= len(jax.devices())):
        larger = replace(config, num_envs=config.num_envs * devices)
        programs = SplitPrograms.of(larger, Split(devices, devices))
        state = programs.init_state(jax.random.key(0), jnp.float32(larger.learning_rate))
        seconds = []
        for _ in range(rounds + 1):
            began = time.perf_counter()
            state, told = programs.run_chunk(state, jnp.int32(1), buffer_size=1)
            jax.block_until_ready(told)
            seconds.append(time.perf_counter() - began)
        rows.append({"part": "speed", "devices": devices, "update_s": sorted(seconds[1:])[rounds // 2]})
        rows[-1]["env_steps_per_s"] = round(larger.steps_per_update / rows[-1]["update_s"])
    for row in rows:
        row["efficiency"] = round(rows[0]["update_s"] / row["update_s"], 3)
    return rows


class Watch(Silent):
    """Notes updates, seconds and resident memory after every chunk."""

    def __init__(self) -> None:
        """Begin without a point."""
        self.points: list[tuple[int, float, float]] = []

    def show(self, status: Status) -> None:
        """Note one point."""
        self.points.append((status.update, time.perf_counter(), resident_mib()))


def measure_soak(name: str, config: PPOConfig, updates: int) -> dict[str, Any]:
    """Measure resident memory and seconds per update along a run with its log and checkpoints.

    The growth of each is a straight line's over the run, over the mean; the first twentieth warms up.
    """
    watch = Watch()
    config = replace(config, total_steps=updates * config.steps_per_update)
    with tempfile.TemporaryDirectory() as scratch:
        Trainer(config, run_dir=Path(scratch) / "run", reporter=watch).run()
    at = np.linspace(updates // SOAK_POINTS, updates, SOAK_POINTS)
    done, clock, resident = np.array(watch.points).T
    seconds = np.diff(np.interp(at, done, clock)) / np.diff(at)
    memory = np.interp(at[1:], done, resident)
    places = np.linspace(0, 1, len(memory))
    return {
        "part": "soak",
        "run": name,
        "updates": updates,
        "chunks": len(done),
        "memory_mib": [round(float(x), 1) for x in memory],
        "update_s": [float(x) for x in seconds],
        "memory_growth": float(np.polyfit(places, memory, 1)[0] / memory.mean()),
        "time_growth": float(np.polyfit(places, seconds, 1)[0] / seconds.mean()),
        "time_noise": float(seconds.std() / seconds.mean()),
    }


def resident_mib() -> float:
    """Return this process's resident memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> int:
    """Measure, print, record; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["bytes", "guards"])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["published", "65,536 environments"])
    parser.add_argument("--devices", nargs="+", type=int, default=list(DEVICES), help="to count on")
    parser.add_argument("--rounds", type=int, default=101, help="of the guards, in turns (default 101)")
    parser.add_argument("--updates", type=int, help="updates of each soak (default 20,000 and 2,000)")
    parser.add_argument("--quick", action="store_true", help="nothing recorded")
    options = parser.parse_args()
    info = _common.machine()
    _common.announce(info)
    rows: list[dict[str, Any]] = []
    if "bytes" in options.parts:
        for name in options.sizes:
            config = SIZES[name]
            rows += measure_bytes(name, config, options.devices)
            counted = rows[-1]
            work = config.steps_per_update / PUBLISHED.steps_per_update
            work *= (1 + 3 * config.num_epochs) / (1 + 3 * PUBLISHED.num_epochs)
            for accelerator, seconds in PUBLISHED_SECONDS.items():
                rows += predict(counted, config, work * seconds, accelerator)
    if "guards" in options.parts:
        rows.append(measure_guards(options.rounds))
    if "speed" in options.parts:
        if info["platform"] == "cpu":
            print("speed: virtual devices share the cores, so nothing is measured")
        else:
            rows += measure_speed(PUBLISHED, rounds=9)
    if "soak" in options.parts:
        for name, (config, updates) in SOAKS.items():
            rows.append(measure_soak(name, config, options.updates or updates))
    for row in rows:
        print(row)
    if not options.quick:
        kept = _common.recorded_rows("scaling", info, rows, ("part", "size", "accelerator", "devices", "run"))
        print(f"written: {_common.write_json('scaling', info, [*kept, *rows])}", file=sys.stderr)
    missed = [
        f"guards: {row['ratio']}, at most {GUARDS_TARGET}"
        for row in rows
        if row["part"] == "guards" and row["ratio"] > GUARDS_TARGET
    ]
    return _common.verdict(missed)


if __name__ == "__main__":
    sys.exit(main())
