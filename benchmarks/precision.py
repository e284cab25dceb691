"""What rounding the factors of matrix products does to learning: float32, TF32 and bfloat16, on a CPU.

    python benchmarks/precision.py              # five seeds a cell; cells that are recorded are not run again
    python benchmarks/precision.py --tasks RepeatPreviousEasy --seeds 5

A GPU multiplies in TF32, whose factors have 10 bits behind the point, or in bfloat16, with 7, and sums in
float32. No CPU has TF32, so factors are rounded to 10 bits before they are multiplied, forwards and
backwards; bfloat16 is the package's own on CPUs. All else stays float32 in all three, as on a GPU.

Tasks, trainer and report are those of defaults.py: every task in the jitted trainer with its default
hyperparameters, all seeds of a cell in one program; per seed the mean return of the episodes that ended in
the last tenth of the updates. These are returns, not times: a busy machine does no harm.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import sys
from typing import Any
from unittest import mock

import jax
import numpy as np
from _common import announce, machine, recorded_rows, table, write_json
from defaults import TASKS
from jax import Array, lax

from s5_adapters.core.xla import rows
from s5_adapters.purejax import PPOConfig, make_train

PRECISIONS = ("float32", "tensorfloat32", "bfloat16")
KEY = ("task", "precision", "seeds")


def as_tf32(x: Array) -> Array:
    """Round to TF32: float32's 8 bits of exponent, 10 behind the point."""
    return lax.reduce_precision(x, exponent_bits=8, mantissa_bits=10)


@jax.custom_vjp
def product(x: Array, kernel: Array) -> Array:
    """Multiply matrices whose factors are rounded, and so are those of its gradient."""
    return as_tf32(x) @ as_tf32(kernel)


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return product(x, kernel), (as_tf32(x), as_tf32(kernel))


def _backward(factors: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = factors
    rounded = as_tf32(cotangent)
    return rounded @ kernel.T, x.T @ rounded


product.defvjp(_forward, _backward)


def measure(task: str, precision: str, seeds: int) -> dict[str, Any]:
    """Train all seeds of a cell in one program."""
    rounds = contextlib.nullcontext()
    if precision == "tensorfloat32":
        # The package rounds on CPUs where it is asked for bfloat16; here that rounding is another one.
        rounds = mock.patch.object(rows, "_rounded_product", product)
    config = PPOConfig(**TASKS[task], precision="float32" if precision == "float32" else "bfloat16")
    keys = jax.vmap(jax.random.key)(np.arange(seeds))
    with rounds:
        history = np.asarray(jax.jit(jax.vmap(make_train(config)))(keys).metrics["episode_return"])
    returns = []
    for seed in history:
        ended = seed[~np.isnan(seed)]
        returns.append(round(float(ended[-max(1, len(ended) // 10) :].mean()), 3))
    cell = {"task": task, "precision": precision, "seeds": seeds, "steps": config.total_steps}
    return cell | {"returns": returns, "median": statistics.median(returns), "worst": min(returns)}


def main() -> int:
    """Run what is not recorded, writing after each cell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()

    info = machine()
    announce(info)
    recorded = recorded_rows("precision", info, [], KEY)
    known = {tuple(row[field] for field in KEY) for row in recorded}
    for task, precision in itertools.product(options.tasks, options.precisions):
        if (task, precision, options.seeds) not in known:
            recorded.append(measure(task, precision, options.seeds))
            write_json("precision", info, recorded)
    names = ("task", "precision", "median", "worst", "returns")
    print(table(names, [[row[name] for name in names] for row in recorded]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
