"""The jitted trainer with S5 against the same trainer with a GRU, at equal width and depth, in one run.

    python benchmarks/trainer.py                       # 2 x 64 at rollouts of 128, 1024 and 4096 steps
    python benchmarks/trainer.py --width 256 --layers 4 --lengths 1024
    python benchmarks/trainer.py --memories s5 gru lstm --quick

Timed is one whole update on RepeatPreviousEasy (the rollout, then all epochs over it) and the rollout alone;
their difference is learning: forward and backward through the sequence. Programs of one length take turns, so
their ratios hold even on a busy machine; compile time stands apart. Ratio is a memory's time over S5's: above
1, S5 is faster.
"""

from __future__ import annotations

import argparse
import functools
from typing import Any

import jax
import jax.numpy as jnp
from _common import compile_cost, interleaved_medians, machine, table, write_json

from s5_adapters.core import memory_names
from s5_adapters.purejax import PPOConfig, build_problem
from s5_adapters.purejax.ppo import init_state, update_step
from s5_adapters.purejax.rollout import collect

OURS = "s5"
NUM_ENVS, NUM_EPOCHS, NUM_MINIBATCHES = 8, 4, 2


def config_of(memory: str, width: int, layers: int, length: int) -> PPOConfig:
    """The trainer's defaults with this memory, width, depth and rollout length."""
    return PPOConfig(
        env_id="RepeatPreviousEasy",
        memory=memory,
        memory_config={"d_model": width, "n_layers": layers} | ({"d_state": width} if memory == OURS else {}),
        encoder=(width,),
        num_envs=NUM_ENVS,
        num_steps=length,
        num_epochs=NUM_EPOCHS,
        num_minibatches=NUM_MINIBATCHES,
        total_steps=100 * NUM_ENVS * length,
    )


def measure(memories: list[str], width: int, layers: int, length: int, rounds: int) -> list[dict[str, Any]]:
    """One row per memory: seconds of an update and of its rollout, ratios to S5, what compiling took."""
    calls, rows = {}, {}
    for memory in memories:
        config = config_of(memory, width, layers, length)
        problem = build_problem(config)
        state = init_state(problem, config, jax.random.key(0), jnp.float32(config.learning_rate))
        update, seconds, scratch = compile_cost(functools.partial(update_step, problem, config), state)
        rollout, _, _ = compile_cost(
            functools.partial(collect, problem, config), state.params, state.carry, state.key
        )
        calls[memory, "update"] = functools.partial(update, state)
        calls[memory, "rollout"] = functools.partial(rollout, state.params, state.carry, state.key)
        rows[memory] = {
            "memory": memory,
            "width": width,
            "layers": layers,
            "length": length,
            "num_envs": NUM_ENVS,
            "num_epochs": NUM_EPOCHS,
            "memory_params": sum(leaf.size for leaf in jax.tree.leaves(state.params["memory"])),
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
    return list(rows.values())


def show(rows: list[dict[str, Any]]) -> str:
    """The rows as a table."""
    header = ["memory", "size", "rollout steps", "env-steps/s", "update s", "ratio", "rollout ratio"]
    header += ["learning ratio", "compile s", "scratch MiB", "memory params"]
    lines = [
        [
            row["memory"],
            f"{row['layers']} x {row['width']}",
            row["length"],
            row["env_steps_per_s"],
            f"{row['update_s']:.2f}",
            f"{row['update_ratio']:.2f}",
            f"{row['rollout_ratio']:.2f}",
            f"{row['learning_ratio']:.2f}",
            f"{row['compile_s']:.1f}",
            f"{row['scratch_bytes'] / 2**20:.1f}",
            row["memory_params"],
        ]
        for row in rows
    ]
    return table(header, lines)


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memories", nargs="+", default=[OURS, "gru"], choices=memory_names())
    parser.add_argument("--width", type=int, default=64, help="d_model and d_state (default 64)")
    parser.add_argument("--layers", type=int, default=2, help="layers of the memory (default 2)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 1024, 4096], help="steps per rollout")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved samples per median (default 5)")
    parser.add_argument(
        "--quick", action="store_true", help="the first length, three rounds, nothing recorded"
    )
    options = parser.parse_args()
    memories = [OURS, *[name for name in options.memories if name != OURS]]

    info = machine()
    load = info["load_average_at_start"]
    print(f"{info['device']}, {info['cores']} cores, jax {info['jax']}, load {load}\n")
    lengths = options.lengths[:1] if options.quick else options.lengths
    rounds = 3 if options.quick else options.rounds
    rows = []
    for length in lengths:
        rows += measure(memories, options.width, options.layers, length, rounds)
    print(show(rows))
    if not options.quick:
        name = f"trainer-{options.layers}x{options.width}"
        print(f"\nwritten: {write_json(name, info, rows, rounds=rounds)}")


if __name__ == "__main__":
    main()
