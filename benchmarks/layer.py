"""The S5 layer and the 4-layer stack against the published program, in one run.

    python benchmarks/layer.py                          # all sizes; benchmarks/results/layer-<machine>.json
    python benchmarks/layer.py --parts layer --lengths 128 --batches 8 64
    python benchmarks/layer.py --quick                  # one size, three rounds, nothing recorded
    python benchmarks/layer.py --quick --parts stack --remats none dots --chunk-rows 256 512   # other choices

d_model is 256, the state 128 complex lanes. "layer" is the state space model alone, "stack" four blocks with
their gates; both sides start from the same undiscretised parameters, and their results are compared before
anything is timed. Gradients are those of every parameter, the input and the state. Ratios are published over
ours, of medians of interleaved samples for time, of XLA's count of temporary bytes for memory: above 1 is
better. "full" recomputes every chunk in the backward pass. A published program that does not fit into memory
is not timed; its bytes are known from compiling. The exit code is 1 where a ratio misses its target.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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
from _published import published_layer, published_stack

from s5_adapters.core import make_memory
from s5_adapters.core.memories.chunks import REMATS, run_in_chunks
from s5_adapters.core.memories.diagonal import layer_sequence
from s5_adapters.core.recurrence.scan import AUTO
from s5_adapters.sweeps.machine import available_bytes

WIDTH, LANES, LAYERS = 256, 128, 4
LENGTHS, BATCHES = (128, 1024, 4096), (8, 64)
PUBLISHED = "published"
LONG, SHORT, LONG_BATCH = 65_536, 1024, 8
PER_TOKEN_TARGET = 1.15
FULL_MEMORY_TARGET = 50.0
"""Least factor by which the stack's gradient must need less memory with everything recomputed."""
TIME_TARGETS = {
    ("layer", 128): (4.4, 3.4),
    ("layer", 1024): (5.5, 4.3),
    ("layer", 4096): (6.8, 4.8),
    ("stack", 128): (2.8, 2.1),
    ("stack", 1024): (3.8, 2.6),
    ("stack", 4096): (4.5, 2.8),
}
"""By part and length, the least ratio of a forward pass, and of a forward and backward pass."""
MEMORY_TARGETS = {("layer", 1024): 7.0, ("layer", 4096): 12.0, ("stack", 1024): 4.0, ("stack", 4096): 4.0}
"""By part and length, the least ratio of the gradient's memory."""

DEFAULT = AUTO
"""What the model stores unless told otherwise: targets of time and memory are for it."""

Program = Callable[..., tuple[Any, jax.Array]]


def ours(part: str, remat: str, chunk_rows: int | None = None) -> Program:
    """Return ``(params, u, starts, state) -> (state, y)`` of one layer or of the stack."""
    memory = make_memory(
        "s5",
        d_model=WIDTH,
        d_state=2 * LANES,
        n_layers=LAYERS if part == "stack" else 1,
        remat=remat,
        chunk_rows=chunk_rows,
    )

    def layer(params: Any, u: Any, starts: Any, state: Any) -> tuple[Any, jax.Array]:
        prepared = memory.prepare({name: leaf[None] for name, leaf in params.items()}).blocks[0].layer

        def run(carried: Any, now: Any) -> tuple[Any, jax.Array]:
            return layer_sequence(prepared, carried, *now)

        final, y = run_in_chunks(run, jnp.stack(state, axis=1), (u, starts), rows=chunk_rows, remat=remat)
        return (final[:, 0], final[:, 1]), y

    def stack(params: Any, u: Any, starts: Any, state: Any) -> tuple[Any, jax.Array]:
        return memory.apply(params, state, u, starts)

    return layer if part == "layer" else stack


def published(part: str) -> Program:
    """Return the published program under the same signature: complex numbers come and go as pairs."""
    run = published_layer if part == "layer" else published_stack

    def program(params: Any, u: Any, starts: Any, state: Any) -> tuple[Any, jax.Array]:
        final, y = run(params, u, starts, jax.lax.complex(*state))
        return (final.real, final.imag), y

    return program


def problem(part: str, length: int, batch: int) -> tuple[Any, ...]:
    """Make fresh parameters, normal inputs, episodes of 100 steps, a carried state."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    layers = LAYERS if part == "stack" else 1
    memory = make_memory("s5", d_model=WIDTH, d_state=2 * LANES, n_layers=layers)
    u, starts = normal(length, batch, WIDTH), jnp.asarray(rng.random((length, batch)) < 0.01)
    params = memory.init(jax.random.key(0), WIDTH)
    shape: tuple[int, ...] = (batch, layers, LANES)
    if part == "layer":
        params = {name: leaf[0] for name, leaf in params.items() if not name.startswith("gate_")}
        shape = (batch, LANES)
    return params, u, starts, (normal(*shape), normal(*shape))


def forward_backward(program: Program) -> Callable[..., Any]:
    """Return outputs, and the gradients of parameters, input and state; the output is its own cotangent."""

    def run(params: Any, u: Any, starts: Any, state: Any) -> Any:
        (final, y), vjp = jax.vjp(lambda p, u, h: program(p, u, starts, h), params, u, state)
        return y, vjp((final, y))

    return run


def check_agreement(calls: dict[str, Callable[[], Any]]) -> None:
    """Check that every result equals the published one's to 1e-3."""
    expected = jax.tree.leaves(calls[PUBLISHED]())
    for name, call in calls.items():
        for mine, theirs in zip(jax.tree.leaves(call()), expected, strict=True):
            error = float(jnp.linalg.norm(mine - theirs) / jnp.linalg.norm(theirs))
            if not error < 1e-3:
                raise SystemExit(
                    f"{name!r} differs from the published program by {error:.1e} (allowed: 1e-3)"
                )


def measure(
    part: str,
    length: int,
    batch: int,
    remats: list[str],
    rounds: int,
    *,
    chunk_rows: tuple[int, ...] = (),
    wait_each: bool = True,
) -> list[dict[str, Any]]:
    """Measure a row per program of this size: seconds, compile seconds, bytes, ratios to the published."""
    arguments = problem(part, length, batch)
    programs = {PUBLISHED: published(part)} | {remat: ours(part, remat) for remat in remats}
    for remat, count in itertools.product(remats, chunk_rows):
        programs[f"{remat}, {count} rows"] = ours(part, remat, count)
    rows = {name: {"part": part, "length": length, "batch": batch, "program": name} for name in programs}
    for direction in ("forward", "forward_backward"):
        calls = {}
        for name, program in programs.items():
            function = program if direction == "forward" else forward_backward(program)
            compiled, seconds, scratch = compile_cost(function, *arguments)
            rows[name] |= {f"{direction}_compile_s": round(seconds, 2), f"{direction}_bytes": scratch}
            if scratch < 0.85 * available_bytes("cpu"):
                calls[name] = functools.partial(compiled, *arguments)
        if PUBLISHED in calls:
            check_agreement(calls)
        medians = interleaved_medians(calls, rounds=rounds, wait_each=wait_each)
        theirs = medians.get(PUBLISHED)
        for name, row in rows.items():
            seconds = medians.get(name)
            row[f"{direction}_s"] = seconds
            row[f"{direction}_ratio"] = theirs / seconds if theirs and seconds else None
            row[f"{direction}_bytes_ratio"] = rows[PUBLISHED][f"{direction}_bytes"] / max(
                row[f"{direction}_bytes"], 1
            )
    return list(rows.values())


def measure_tokens(rounds: int) -> dict[str, Any]:
    """Measure the time per token at a long length over that at a short one, forward and backward."""
    row: dict[str, Any] = {"part": "tokens", "long": LONG, "short": SHORT, "batch": LONG_BATCH}
    for direction in ("forward", "forward_backward"):
        calls = {}
        for length in (LONG, SHORT):
            program = ours("layer", DEFAULT)
            function = program if direction == "forward" else forward_backward(program)
            arguments = problem("layer", length, LONG_BATCH)
            calls[str(length)] = functools.partial(compile_cost(function, *arguments)[0], *arguments)
        medians = interleaved_medians(calls, rounds=rounds, min_sample_s=0.5)
        per_token = {length: medians[str(length)] / length for length in (LONG, SHORT)}
        row[f"{direction}_ratio"] = per_token[LONG] / per_token[SHORT]
    return row


def missed_targets(rows: list[dict[str, Any]]) -> list[str]:
    """Return one line for each ratio that is below its target."""
    missed = []
    for row in rows:
        if row["part"] == "tokens":
            for direction in ("forward", "forward_backward"):
                ratio = row[f"{direction}_ratio"]
                if ratio > PER_TOKEN_TARGET:
                    missed.append(f"time per token, {direction}: {ratio:.2f}, at most {PER_TOKEN_TARGET}")
            continue
        where = f"{row['part']} {row['length']} x {row['batch']} {row['program']}"
        for what, ratio, target in targets(row):
            if target is not None and ratio is not None and ratio < target:
                missed.append(f"{where}, {what}: {ratio:.2f}, at least {target}")
    return missed


def targets(row: dict[str, Any]) -> list[tuple[str, float | None, float | None]]:
    """Return (what, ratio, target) of a row; targets of time are for the default."""
    key = row["part"], row["length"]
    forward, backward = TIME_TARGETS.get(key, (None, None)) if row["program"] == DEFAULT else (None, None)
    memory = MEMORY_TARGETS.get(key) if row["program"] == DEFAULT else None
    if row["program"] == "full" and row["part"] == "stack" and row["length"] > 128:
        memory = FULL_MEMORY_TARGET
    return [
        ("forward", row["forward_ratio"], forward),
        ("forward + backward", row["forward_backward_ratio"], backward),
        ("gradient memory", row["forward_backward_bytes_ratio"], memory),
    ]


def show(rows: list[dict[str, Any]]) -> str:
    """Format the rows as a table."""
    header = ["part", "size", "program", "fwd ms", "ratio", "target", "fwd+bwd ms", "ratio", "target"]
    header += ["gradient MiB", "ratio", "target", "compile s"]

    def number(value: float | None, form: str = ".2f") -> str:
        return "-" if value is None else format(value, form)

    lines = []
    for row in rows:
        if row["part"] == "tokens":
            continue
        (_, forward, forward_target), (_, backward, backward_target), (_, memory, memory_target) = targets(
            row
        )
        lines.append(
            [
                row["part"],
                f"{row['length']} x {row['batch']}",
                row["program"],
                number(row["forward_s"] and 1e3 * row["forward_s"]),
                number(forward),
                number(forward_target),
                number(row["forward_backward_s"] and 1e3 * row["forward_backward_s"]),
                number(backward),
                number(backward_target),
                f"{row['forward_backward_bytes'] / 2**20:.1f}",
                number(memory, ".1f"),
                number(memory_target),
                f"{row['forward_backward_compile_s']:.1f}",
            ]
        )
    text = table(header, lines) if lines else ""
    for row in rows:
        if row["part"] == "tokens":
            text += (
                f"\n\ntime per token at {row['long']:,} over {row['short']:,}, batch {row['batch']}: forward "
                f"{row['forward_ratio']:.2f}, forward + backward {row['forward_backward_ratio']:.2f} "
                f"(target: at most {PER_TOKEN_TARGET})"
            )
    return text


def main() -> int:
    """Measure, print, record; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=["layer", "stack", "tokens"])
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="steps in time")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="sequences side by side")
    parser.add_argument("--remats", nargs="+", default=[DEFAULT, "full"], choices=[AUTO, *REMATS])
    parser.add_argument("--chunk-rows", type=int, nargs="+", default=[], help="with --quick: also these")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved samples per median (default 5)")
    parser.add_argument("--quick", action="store_true", help="1024 x 8, three rounds, nothing recorded")
    options = parser.parse_args()
    if options.chunk_rows and not options.quick:
        parser.error("--chunk-rows goes with --quick: the record is of the default")

    info = machine()
    announce(info)
    sizes = [(1024, 8)] if options.quick else list(itertools.product(options.lengths, options.batches))
    rounds = 3 if options.quick else options.rounds
    rows: list[dict[str, Any]] = []

    def record(more: list[dict[str, Any]], what: str) -> None:
        """Write the measurements so far: a run that is cut short keeps them."""
        rows.extend(row | {"date": info["date"]} for row in more)
        if not options.quick:
            key = ("part", "length", "batch")
            kept = recorded_rows("layer", info, rows, key)
            what += f" measured, in {write_json('layer', info, [*kept, *rows], rounds=rounds).name}"
        print(what, file=sys.stderr, flush=True)

    for part in options.parts:
        if part == "tokens":
            record([measure_tokens(rounds)], part)
            continue
        for size in sizes:
            remats = list(dict.fromkeys(options.remats))
            measured = measure(part, *size, remats, rounds, chunk_rows=tuple(options.chunk_rows))
            record(measured, f"{part} {size[0]} x {size[1]}")
    print(show(rows))
    return verdict(missed_targets(rows))


if __name__ == "__main__":
    sys.exit(main())
