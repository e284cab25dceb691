"""What the machine allows: the speed of XLA's matrix products, of a copy, of memory used for the first time.

    python benchmarks/floor.py             # table and benchmarks/results/floor-<machine>.json
    python benchmarks/floor.py --quick     # three rounds, nothing recorded

The products are those of a layer of width 256 and its gate. From their speed follows how many environment
steps a second the trainer could make with the published network if nothing but products took time.
"""

from __future__ import annotations

import argparse
import functools
import mmap
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _common import announce, interleaved_medians, machine, table, write_json

REPEATS = 8
"""Products in one program, each of its own rows: what starting a program costs must not show."""
PRODUCTS = {
    "1,024 x 256 by 256 x 256": (1024, 256, False),
    "1,024 x 256 by 256 x 512": (1024, 512, False),
    "832 x 256 by 256 x 256": (832, 256, False),
    "128 x 256 by 256 x 256": (128, 256, False),
    "64 x 256 by 256 x 256": (64, 256, False),
    "32 x 256 by 256 x 256": (32, 256, False),
    "8 x 256 by 256 x 256": (8, 256, False),
    "(1,024 x 256) transposed by 1,024 x 256": (1024, 256, True),
    "(832 x 256) transposed by 832 x 256": (832, 256, True),
}
"""Rows, columns, and whether it is a weight's gradient: a sum over the rows."""
INNER = 256
ACTING, FORWARD, GRADIENT = (
    "32 x 256 by 256 x 256",
    "832 x 256 by 256 x 256",
    "(832 x 256) transposed by 832 x 256",
)
NETWORK_WEIGHTS = 128 * 256 + 4 * (2 * 256 * 256 + 256 * 512) + 2 * (256 * 128 + 128 * 128)
"""Multiply-adds a step of the published network: its encoder, four layers with gates, two torsos."""
EPOCHS = 4
COPIED_BYTES = 64 << 20
TOUCHED_BYTES = 256 << 20


def product(rows: int, columns: int, is_gradient: bool) -> Any:
    """A call of `REPEATS` products in a row."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    x, g, weight = normal(REPEATS, rows, INNER), normal(REPEATS, rows, columns), normal(INNER, columns)

    @jax.jit
    def gradients(x: jax.Array, g: jax.Array) -> jax.Array:
        total = jnp.zeros((INNER, columns))
        return jax.lax.scan(lambda total, now: (total + now[0].T @ now[1], None), total, (x, g))[0]

    @jax.jit
    def products(x: jax.Array, weight: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda none, now: (none, now @ weight), None, x)[1]

    return functools.partial(gradients, x, g) if is_gradient else functools.partial(products, x, weight)


def page_microseconds() -> float:
    """Median microseconds of the first write to a page of memory."""
    samples = []
    for _ in range(5):
        with mmap.mmap(-1, TOUCHED_BYTES) as memory:
            view = np.frombuffer(memory, np.uint8)
            began = time.perf_counter()
            view[:: mmap.PAGESIZE] = 1
            samples.append((time.perf_counter() - began) / (TOUCHED_BYTES // mmap.PAGESIZE))
            del view
    return 1e6 * statistics.median(samples)


def main() -> int:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="interleaved samples per median (default 9)")
    parser.add_argument("--quick", action="store_true", help="three rounds, nothing recorded")
    options = parser.parse_args()
    info = machine()
    announce(info)

    rounds = 3 if options.quick else options.rounds
    calls = {name: product(*shape) for name, shape in PRODUCTS.items()}
    copied = jnp.ones(COPIED_BYTES // 4)
    calls["copy"] = functools.partial(jax.jit(lambda x: 2 * x), copied)
    medians = interleaved_medians(calls, rounds=rounds, min_sample_s=0.1)
    speeds = {
        name: 2 * REPEATS * rows * INNER * columns / medians[name]
        for name, (rows, columns, _) in PRODUCTS.items()
    }
    lines = [[name, f"{1e-9 * speed:.0f} GFLOP/s"] for name, speed in speeds.items()]
    rows: list[dict[str, Any]] = [
        {"part": "product", "what": name, "gflop_per_s": round(1e-9 * speed, 1)}
        for name, speed in speeds.items()
    ]

    bandwidth = 2 * COPIED_BYTES / medians["copy"]
    page = page_microseconds()
    step = 2 * NETWORK_WEIGHTS
    seconds = step / speeds[ACTING] + EPOCHS * (2 * step / speeds[FORWARD] + step / speeds[GRADIENT])
    rows += [
        {"part": "copy", "bytes": COPIED_BYTES, "gb_per_s": round(1e-9 * bandwidth, 2)},
        {"part": "page", "bytes": mmap.PAGESIZE, "microseconds": round(page, 3)},
        {"part": "published network", "mflop": round(1e-6 * step, 2), "env_steps_per_s": round(1 / seconds)},
    ]
    lines += [
        [f"scaled copy of {COPIED_BYTES >> 20} MiB, read and written", f"{1e-9 * bandwidth:.1f} GB/s"],
        [f"first write to {mmap.PAGESIZE} bytes of new memory", f"{page:.2f} us"],
        ["published network, products alone", f"{1 / seconds:,.0f} env-steps/s"],
    ]
    print(table(["what", "speed"], lines))
    if not options.quick:
        print(f"\nwritten: {write_json('floor', info, rows, rounds=rounds)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
