"""Every memory of the registry: time, memory, parameters, in one run.

    python benchmarks/memories.py             # table and benchmarks/results/memories-<machine>.json
    python benchmarks/memories.py --match-params          # widened or narrowed to S5's number of parameters
    python benchmarks/memories.py --quick     # three rounds, nothing recorded
    python benchmarks/memories.py --quick --memories s5 mamba --length 104 --batch 16

Two layers of width 64 (S5's state too; Mamba's 16 a channel) over 1,024 steps of 8 sequences with episodes of
100 steps: the forward pass, forward and backward for parameters and inputs, and one step of 32 sequences with
prepared parameters. Programs take turns, so their ratios hold even on a busy machine. A ratio is a memory's
time over S5's: above 1, S5 is faster. MiB are XLA's count of temporary memory of the gradient.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _common import announce, compile_cost, interleaved_medians, machine, table, write_json

from s5_adapters.core import Memory, make_memory, memory_names
from s5_adapters.core.memories.matching import count_params, match_params

OURS = "s5"
WIDTH, LAYERS, ACTING_BATCH = 64, 2, 32
PARTS = ("forward", "forward_backward", "step")


def make(name: str, *, matched: bool) -> Memory:
    """Make the memory at this benchmark's width and depth, or at S5's number of parameters."""
    config = {"d_model": WIDTH, "n_layers": LAYERS}
    if matched and name != OURS:
        target = count_params(make(OURS, matched=False), WIDTH)
        config = match_params(name, config, target=target, width=WIDTH)
    return make_memory(name, **config, **({"d_state": WIDTH} if name in (OURS, "lru") else {}))


def programs(memory: Memory, length: int, batch: int) -> tuple[dict[str, Callable[[], Any]], dict[str, Any]]:
    """Compile the memory's three programs; return them and what compiling tells."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(length, batch, WIDTH)), jnp.float32)
    starts = jnp.asarray(rng.random((length, batch)) < 0.01)
    params, state = memory.init(jax.random.key(0), WIDTH), memory.initial_state(batch)

    def forward(params: Any, x: Any) -> Any:
        return memory.apply(params, state, x, starts)[1]

    def forward_backward(params: Any, x: Any) -> Any:
        y, vjp = jax.vjp(forward, params, x)
        return vjp(y)

    run, forward_s, _ = compile_cost(forward, params, x)
    gradient, seconds, scratch = compile_cost(forward_backward, params, x)
    acting = memory.initial_state(ACTING_BATCH), x[:ACTING_BATCH, 0], starts[:ACTING_BATCH, 0]
    prepared = jax.jit(memory.prepare)(params)
    step, _, _ = compile_cost(memory.step, prepared, *acting)
    calls = {
        "forward": functools.partial(run, params, x),
        "forward_backward": functools.partial(gradient, params, x),
        "step": functools.partial(step, prepared, *acting),
    }
    return calls, {
        "memory": memory.name,
        "width": memory.d_model,
        "layers": memory.n_layers,
        "length": length,
        "batch": batch,
        "params": count_params(memory, WIDTH),
        "state_numbers": sum(leaf.size for leaf in jax.tree.leaves(memory.initial_state(1))),
        "scratch_bytes": scratch,
        "compile_s": round(forward_s + seconds, 2),
    }


def measure(names: list[str], length: int, batch: int, rounds: int, *, matched: bool) -> list[dict[str, Any]]:
    """Measure one row per memory: seconds of each part, ratios to S5's."""
    calls, rows = {}, {}
    for name in names:
        own, rows[name] = programs(make(name, matched=matched), length, batch)
        rows[name]["matched"] = matched
        calls |= {f"{name} {part}": call for part, call in own.items()}
    medians = interleaved_medians(calls, rounds=rounds)
    for name, row in rows.items():
        for part in PARTS:
            seconds = medians[f"{name} {part}"]
            row |= {f"{part}_s": seconds, f"{part}_ratio": round(seconds / medians[f"{OURS} {part}"], 2)}
    return list(rows.values())


def show(rows: list[dict[str, Any]]) -> str:
    """Format the rows as a table."""
    header = [
        "memory",
        "width",
        "params",
        "state",
        "fwd ms",
        "ratio",
        "fwd+bwd ms",
        "ratio",
        "step us",
        "ratio",
    ]
    lines = [
        [
            row["memory"],
            row["width"],
            row["params"],
            row["state_numbers"],
            f"{1e3 * row['forward_s']:.1f}",
            row["forward_ratio"],
            f"{1e3 * row['forward_backward_s']:.1f}",
            row["forward_backward_ratio"],
            f"{1e6 * row['step_s']:.0f}",
            row["step_ratio"],
            f"{row['scratch_bytes'] / 2**20:.1f}",
            row["compile_s"],
        ]
        for row in rows
    ]
    return table([*header, "gradient MiB", "compile s"], lines)


def main() -> int:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memories", nargs="+", default=list(memory_names()), choices=memory_names())
    parser.add_argument("--length", type=int, default=1024, help="steps in time")
    parser.add_argument("--batch", type=int, default=8, help="sequences side by side")
    parser.add_argument("--match-params", action="store_true", help="each at S5's number of parameters")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved samples per median (default 5)")
    parser.add_argument("--quick", action="store_true", help="three rounds, nothing recorded")
    options = parser.parse_args()
    info = machine()
    announce(info)
    names = [OURS, *[name for name in options.memories if name != OURS]]
    rounds = 3 if options.quick else options.rounds
    rows = measure(names, options.length, options.batch, rounds, matched=options.match_params)
    print(show(rows))
    if not options.quick:
        name = "memories-matched" if options.match_params else "memories"
        print(f"\nwritten: {write_json(name, info, rows, rounds=rounds)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
