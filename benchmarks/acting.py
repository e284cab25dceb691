"""One step of a 4-layer stack: prepared weights and the published arithmetic, in one run.

    python benchmarks/acting.py             # table and benchmarks/results/acting-<machine>.json
    python benchmarks/acting.py --quick     # three rounds, nothing recorded

d_model is 256, the state 128 complex lanes, the batch 1, 8 or 64. The published step discretises in every
call and multiplies complex matrices; ours takes what `Memory.prepare` made once per update of the parameters.
Share is our time over the published: lower is better, and the exit code is 1 where it misses its target.
"""

from __future__ import annotations

import argparse
import functools
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _common import announce, interleaved_medians, machine, table, verdict, write_json
from _published import published_step

from s5_adapters.core import make_memory

WIDTH, LANES, LAYERS = 256, 128, 4
TARGETS = {1: 0.40, 8: 0.55, 64: 0.60}


def measure(batch: int, rounds: int) -> dict[str, Any]:
    """Measure microseconds of one step either way, and of preparing the weights."""
    rng = np.random.default_rng(0)
    memory = make_memory("s5", d_model=WIDTH, d_state=2 * LANES, n_layers=LAYERS)
    u = jnp.asarray(rng.normal(size=(batch, WIDTH)), jnp.float32)
    starts = jnp.asarray(rng.random(batch) < 0.1)
    re, im = (jnp.asarray(rng.normal(size=(batch, LAYERS, LANES)), jnp.float32) for _ in range(2))
    params = memory.init(jax.random.key(0), WIDTH)
    prepare, ours, theirs = jax.jit(memory.prepare), jax.jit(memory.step), jax.jit(published_step)
    prepared, state = prepare(params), jax.lax.complex(re, im)
    (our_re, _), our_y = ours(prepared, (re, im), u, starts)
    their_state, their_y = theirs(params, u, starts, state)
    for mine, expected in ((our_re, their_state.real), (our_y, their_y)):
        np.testing.assert_allclose(mine, expected, rtol=1e-3, atol=1e-3)
    calls = {
        "published": functools.partial(theirs, params, u, starts, state),
        "ours": functools.partial(ours, prepared, (re, im), u, starts),
        "prepare": functools.partial(prepare, params),
    }
    medians = interleaved_medians(calls, rounds=rounds, min_sample_s=0.2)
    share = round(medians["ours"] / medians["published"], 3)
    return {"batch": batch, "share": share, "target": TARGETS[batch]} | {
        f"{name}_us": round(1e6 * seconds, 1) for name, seconds in medians.items()
    }


def main() -> int:
    """Measure, print, record; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="interleaved samples per median (default 5)")
    parser.add_argument("--quick", action="store_true", help="three rounds, nothing recorded")
    options = parser.parse_args()
    info = machine()
    announce(info)
    rows = [measure(batch, 3 if options.quick else options.rounds) for batch in TARGETS]
    names = ["batch", "published_us", "ours_us", "share", "target", "prepare_us"]
    lines = [[row[name] for name in names] for row in rows]
    print(table([name.replace("_", " ") for name in names], lines))
    if not options.quick:
        print(f"\nwritten: {write_json('acting', info, rows, rounds=options.rounds)}")
    return verdict(
        [
            f"batch {row['batch']}: {row['share']:.2f}, at most {row['target']}"
            for row in rows
            if row["share"] > row["target"]
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
