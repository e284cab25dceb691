"""Each method of `linear_recurrence` against the published scan, in one run.

    python benchmarks/scan.py                  # table and benchmarks/results/scan-<machine>.json
    python benchmarks/scan.py --write-table    # and the table that method="auto" reads
    python benchmarks/scan.py --decays varying # the decay of every step alone; keeps the recorded others
    python benchmarks/scan.py --quick          # a minute: two sizes, three rounds, nothing recorded

The published scan is `jax.lax.associative_scan` over triples (decay, input, reset) of complex64, the
operator of Lu et al., "Structured State Space Models for In-Context Reinforcement Learning" (arXiv
2303.03982), with one decay per step and the batch by `vmap`. Rows "varying" are of a real decay of every
step, as minGRU and Mamba have it, beside `jax.lax.associative_scan` over pairs (decay, input) with the decay
zeroed at resets. Ratios are published time over ours: above 1 is faster. Timings of one size are interleaved,
so only they may be compared with each other. The exit code is 1 where the method that "auto" takes (marked *)
is not twice as fast as the published, forward and backward; with a varying decay, three times at 1,024 x 64,
forward too.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _common import (
    compile_cost,
    interleaved_medians,
    machine,
    recorded_rows,
    table,
    verdict,
    write_json,
)
from _published import published_scan

import s5_adapters.core
from s5_adapters.core import linear_recurrence
from s5_adapters.core.recurrence.table import load_table, measured_method, varying_method

METHODS = {"constant": ("sequential", "chunked", "associative"), "varying": ("sequential", "associative")}
"""By the decay: one for all steps, complex, or one of every step, real."""
LENGTHS = (128, 1024, 4096)
BATCHES = (8, 64)
STATE = 128
PUBLISHED = "published"
AUTO_TARGET = 2.0
VARYING_TARGET, VARYING_SIZE = 3.0, (1024, 64)
TABLE = Path(s5_adapters.core.__file__).parent / "scan_table.json"


def problem(length: int, batch: int, decay: str, state: int = STATE) -> tuple[jax.Array, ...]:
    """Make decays in the unit circle, normal inputs, episodes of 100 steps, a carried state, a cotangent."""
    rng = np.random.default_rng(0)
    varies = decay == "varying"
    dtype = jnp.float32 if varies else jnp.complex64

    def normal(*shape: int) -> jax.Array:
        numbers = rng.normal(size=shape)
        return jnp.asarray(numbers if varies else numbers + 1j * rng.normal(size=shape), dtype)

    decays: Any = rng.uniform(0.9, 0.999, (length, batch, state) if varies else state)
    if not varies:
        decays = decays * np.exp(1j * rng.uniform(0, np.pi, state))
    starts = rng.random((length, batch)) < 0.01
    return (
        jnp.asarray(decays, dtype),
        normal(length, batch, state),
        jnp.asarray(starts),
        normal(batch, state),
        normal(length, batch, state),
    )


def forward_backward(scan: Callable[..., jax.Array]) -> Callable[..., Any]:
    """Return states, and the gradients of all float arguments for a given cotangent."""

    def run(decay: Any, inputs: Any, starts: Any, initial: Any, cotangent: Any) -> Any:
        states, vjp = jax.vjp(lambda d, u, h: scan(d, u, starts, h), decay, inputs, initial)
        return states, vjp(cotangent)

    return run


def pairs_scan(decay: Any, inputs: Any, starts: Any, initial: Any) -> jax.Array:
    """Scan a decay of every step the common way: pairs, and a reset is a decay of zero."""
    decay = jnp.where(starts[..., None], 0.0, decay)
    inputs = inputs.at[0].add(decay[0] * initial)
    return jax.lax.associative_scan(lambda a, b: (a[0] * b[0], b[0] * a[1] + b[1]), (decay, inputs))[1]


def measure(length: int, batch: int, decay: str, rounds: int) -> list[dict[str, Any]]:
    """Measure a row per scan of this size: seconds, ratio to the published one, compile seconds, scratch."""
    *arguments, cotangent = problem(length, batch, decay)
    scans = {PUBLISHED: published_scan if decay == "constant" else pairs_scan} | {
        method: functools.partial(linear_recurrence, method=method) for method in METHODS[decay]
    }
    size = {"length": length, "batch": batch, "state": STATE, "decay": decay}
    rows = {name: {**size, "scan": name} for name in scans}
    for part, inputs in (("forward", arguments), ("forward_backward", [*arguments, cotangent])):
        compiled = {}
        for name, scan in scans.items():
            function = scan if part == "forward" else forward_backward(scan)
            compiled[name], seconds, scratch = compile_cost(function, *inputs)
            rows[name] |= {f"{part}_compile_s": round(seconds, 3), f"{part}_scratch_bytes": scratch}
        calls = {name: functools.partial(program, *inputs) for name, program in compiled.items()}
        check_agreement(calls)
        medians = interleaved_medians(calls, rounds=rounds)
        for name, seconds in medians.items():
            rows[name] |= {f"{part}_s": seconds, f"{part}_ratio": round(medians[PUBLISHED] / seconds, 2)}
    return list(rows.values())


def check_agreement(calls: dict[str, Callable[[], Any]]) -> None:
    """Check that every result equals the published one's to 1e-4."""
    expected = jax.tree.leaves(calls[PUBLISHED]())
    for name, call in calls.items():
        for ours, theirs in zip(jax.tree.leaves(call()), expected, strict=True):
            error = float(jnp.linalg.norm(ours - theirs) / jnp.linalg.norm(theirs))
            if not error < 1e-4:
                raise SystemExit(
                    f"scan {name!r} differs from the published scan by {error:.1e} (allowed: 1e-4)"
                )


def write_auto_table(rows: list[dict[str, Any]], platform: str) -> Path:
    """Record the fastest method (forward and backward) of each size; other platforms' entries stay."""
    known = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    ours = [row for row in rows if row["scan"] != PUBLISHED and row["decay"] == "constant"]
    known[platform] = [
        {
            "length": length,
            "batch": batch,
            "method": min(
                (row for row in ours if (row["length"], row["batch"]) == (length, batch)),
                key=lambda row: row["forward_backward_s"],
            )["scan"],
        }
        for length, batch in sorted({(row["length"], row["batch"]) for row in ours})
    ]
    TABLE.write_text(json.dumps(known, indent=2) + "\n")
    return TABLE


def is_auto(row: dict[str, Any]) -> bool:
    """Tell whether `method="auto"` takes this row's method at its size."""
    if row["decay"] == "varying":
        return row["scan"] == varying_method()
    return row["scan"] == measured_method(length=row["length"], batch=row["batch"], width=STATE)


def missed_targets(rows: list[dict[str, Any]]) -> list[str]:
    """Return one line for each size at which "auto" is too slow."""
    missed = []
    for row in filter(is_auto, rows):
        where = f"{row['decay']}, {row['scan']} at {row['length']} x {row['batch']}"
        parts, target = ("forward_backward",), AUTO_TARGET
        if row["decay"] == "varying" and (row["length"], row["batch"]) == VARYING_SIZE:
            parts, target = ("forward", "forward_backward"), VARYING_TARGET
        for part in parts:
            if row[f"{part}_ratio"] < target:
                missed.append(f"{where}, {part}: {row[f'{part}_ratio']}, at least {target}")
    return missed


def show(rows: list[dict[str, Any]]) -> str:
    """Format the rows as a table: milliseconds, ratios, compile seconds, scratch MiB."""
    header = [
        "scan",
        "decay",
        "length",
        "batch",
        "fwd ms",
        "ratio",
        "fwd+bwd ms",
        "ratio",
        "compile s",
        "scratch MiB",
    ]
    lines = [
        [
            row["scan"] + (" *" if is_auto(row) else ""),
            row["decay"],
            row["length"],
            row["batch"],
            f"{1e3 * row['forward_s']:.2f}",
            f"{row['forward_ratio']:.2f}",
            f"{1e3 * row['forward_backward_s']:.2f}",
            f"{row['forward_backward_ratio']:.2f}",
            f"{row['forward_backward_compile_s']:.2f}",
            f"{row['forward_backward_scratch_bytes'] / 2**20:.1f}",
        ]
        for row in rows
    ]
    return table(header, lines)


def main() -> int:
    """Measure, print, record; 1 where "auto" is too slow."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write-table", action="store_true", help='write the table that method="auto" reads')
    parser.add_argument("--quick", action="store_true", help="two sizes, three rounds, nothing recorded")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="steps in time")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="sequences side by side")
    parser.add_argument("--decays", nargs="+", default=list(METHODS), choices=METHODS, help="kinds of decay")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved samples per median (default 5)")
    options = parser.parse_args()
    if options.write_table and (options.quick or "constant" not in options.decays):
        parser.error("--write-table needs the full run, not --quick nor --decays varying")

    info = machine()
    print(
        f"{info['device']}, {info['cores']} cores, jax {info['jax']}, load {info['load_average_at_start']}\n"
    )
    sizes = (
        [(128, 8), (1024, 8)] if options.quick else list(itertools.product(options.lengths, options.batches))
    )
    rounds = 3 if options.quick else options.rounds
    rows = [row for decay in options.decays for size in sizes for row in measure(*size, decay, rounds)]
    print(show(rows))
    if not options.quick:
        others = [
            row | {"decay": row.get("decay", "constant")} for row in recorded_rows("scan", info, [], [])
        ]
        kept = [row for row in others if row["decay"] not in options.decays]
        print(f"\nwritten: {write_json('scan', info, [*kept, *rows], rounds=options.rounds)}")
    if options.write_table:
        print(f"written: {write_auto_table(rows, info['platform'])}")
        load_table.cache_clear()
    return verdict(missed_targets(rows))


if __name__ == "__main__":
    sys.exit(main())
