"""The machine's limits: the speed of XLA's matrix products, of a copy, of memory used for the first time.

    python benchmarks/floor.py             # table and benchmarks/results/floor-<machine>.json
    python benchmarks/floor.py --quick     # three rounds, nothing recorded

The products are those of a layer of width 256: the best of several samples, their factors in the cache. From
their speed follows how many environment steps a second the trainer could make with the published network if
nothing but products took time. NumPy's BLAS computes the same products beside XLA: where it is faster, the
limit is not the machine's but XLA's way of sharing a product between cores.
"""

from __future__ import annotations

import argparse
import functools
import mmap
import statistics
import sys
import time
import timeit
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _common import announce, machine, table, write_json

WIDTH = 256
REPEATS = 8
"""Products in one program: what starting a program costs must not show."""
ACTING, FORWARD, GRADIENT = (32, False), (832, False), (832, True)
"""Products of the published network: rows, and whether it is a weight's gradient, a sum over the rows."""
PRODUCTS = (
    *((1024, False), FORWARD, (128, False), (64, False), ACTING, (8, False)),
    *((1024, True), GRADIENT),
)
NETWORK_WEIGHTS = 128 * 256 + 4 * (2 * 256 * 256 + 256 * 512) + 2 * (256 * 128 + 128 * 128)
"""Multiply-adds a step of the published network: its encoder, four layers with gates, two torsos."""
EPOCHS = 4
COPIED_BYTES = 64 << 20
TOUCHED_BYTES = 256 << 20


def product_name(rows: int, is_gradient: bool) -> str:
    """Return a product's name in the table."""
    if is_gradient:
        return f"({rows:,} x {WIDTH}) transposed by {rows:,} x {WIDTH}"
    return f"{rows:,} x {WIDTH} by {WIDTH} x {WIDTH}"


def product(rows: int, is_gradient: bool) -> Callable[[], jax.Array]:
    """Make a call of `REPEATS` products, one after another, or summed as a loop over chunks sums them."""
    rng = np.random.default_rng(0)
    x, g = (jnp.asarray(rng.normal(size=(REPEATS, rows, WIDTH)), jnp.float32) for _ in range(2))
    rotation = jnp.asarray(np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0], jnp.float32)

    @jax.jit
    def gradients(x: jax.Array, g: jax.Array) -> jax.Array:
        total = jnp.zeros((WIDTH, WIDTH))
        return jax.lax.scan(lambda total, now: (total + now[0].T @ now[1], None), total, (x, g))[0]

    @jax.jit
    def products(x: jax.Array, weight: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, REPEATS, lambda _, x: x @ weight, x)

    return functools.partial(gradients, x, g) if is_gradient else functools.partial(products, x[0], rotation)


def blas_product(rows: int, is_gradient: bool) -> Callable[[], Any]:
    """Make the same number of products by NumPy, into arrays that exist already."""
    rng = np.random.default_rng(0)
    x, g = (rng.normal(size=(rows, WIDTH)).astype(np.float32) for _ in range(2))
    weight = rng.normal(size=(WIDTH, WIDTH)).astype(np.float32)
    left, right = (x.T, g) if is_gradient else (x, weight)
    result = np.empty((left.shape[0], WIDTH), np.float32)

    def products() -> np.ndarray[Any, Any]:
        for _ in range(REPEATS):
            np.matmul(left, right, out=result)
        return result

    return products


def published_network_speed(speeds: dict[tuple[int, bool], float]) -> float:
    """Return environment steps per second with the published network if products alone took time."""
    step = 2 * NETWORK_WEIGHTS
    return 1 / (step / speeds[ACTING] + EPOCHS * (2 * step / speeds[FORWARD] + step / speeds[GRADIENT]))


def best_seconds(call: Callable[[], Any], rounds: int, sample_s: float = 0.05) -> float:
    """Return the least seconds of one call in `rounds` samples: a floor is undisturbed."""
    timer = timeit.Timer(lambda: jax.block_until_ready(call()))
    timer.timeit(1)
    number = max(1, round(sample_s / timer.timeit(1)))
    return min(timer.repeat(rounds, number)) / number


def page_microseconds() -> float:
    """Measure microseconds of the first write to a page of memory, the median of five."""
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
    parser.add_argument("--rounds", type=int, default=9, help="samples, of which the best counts (default 9)")
    parser.add_argument("--quick", action="store_true", help="three rounds, nothing recorded")
    options = parser.parse_args()
    info = machine()
    announce(info)

    rounds = 3 if options.quick else options.rounds
    flops = {shape: 2 * REPEATS * shape[0] * WIDTH**2 for shape in PRODUCTS}
    xla = {shape: flops[shape] / best_seconds(product(*shape), rounds) for shape in PRODUCTS}
    blas = {shape: flops[shape] / best_seconds(blas_product(*shape), rounds) for shape in PRODUCTS}
    lines = [
        [product_name(*shape), f"{1e-9 * xla[shape]:.0f} GFLOP/s", f"{1e-9 * blas[shape]:.0f} GFLOP/s"]
        for shape in PRODUCTS
    ]
    rows: list[dict[str, Any]] = [
        {
            "part": "product",
            "what": product_name(*shape),
            "gflop_per_s": round(1e-9 * xla[shape], 1),
            "blas_gflop_per_s": round(1e-9 * blas[shape], 1),
        }
        for shape in PRODUCTS
    ]

    copied = jnp.ones(COPIED_BYTES // 4)
    bandwidth = 2 * COPIED_BYTES / best_seconds(functools.partial(jax.jit(lambda x: 2 * x), copied), rounds)
    page = page_microseconds()
    xla_steps, blas_steps = published_network_speed(xla), published_network_speed(blas)
    rows += [
        {"part": "copy", "bytes": COPIED_BYTES, "gb_per_s": round(1e-9 * bandwidth, 2)},
        {"part": "page", "bytes": mmap.PAGESIZE, "microseconds": round(page, 3)},
        {
            "part": "published network",
            "mflop": round(2e-6 * NETWORK_WEIGHTS, 2),
            "env_steps_per_s": round(xla_steps),
            "blas_env_steps_per_s": round(blas_steps),
        },
    ]
    lines += [
        ["published network, products alone", f"{xla_steps:,.0f} steps/s", f"{blas_steps:,.0f} steps/s"],
        [f"scaled copy of {COPIED_BYTES >> 20} MiB, read and written", f"{1e-9 * bandwidth:.1f} GB/s", ""],
        [f"first write to {mmap.PAGESIZE} bytes of new memory", f"{page:.2f} us", ""],
    ]
    print(table(["what", "XLA", "NumPy's BLAS"], lines))
    if not options.quick:
        print(f"\nwritten: {write_json('floor', info, rows, rounds=rounds)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
