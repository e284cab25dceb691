"""Seconds and bytes of one memory at one length: training on a sequence, and acting after it."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from s5_adapters.core import make_memory
from s5_adapters.core.memories.matching import count_params
from s5_adapters.reproduce.spec import Cell
from s5_adapters.sweeps.machine import available_bytes

EPISODE_STEPS = 100
"""One step in so many begins an episode, at random."""
_SAMPLES = 5
_SAMPLE_SECONDS = 0.05
_LONG_SECONDS = 10.0
"""A call that takes as long is timed once."""
_SECONDS_PER_STEP = 2e-6


def run(cell: Cell, folder: Path) -> dict[str, Any]:
    """Measure; nothing is kept in ``folder``, since a cell is measured in one go."""
    work = cell.entry.work
    memory, length, batch = (
        make_memory(work["memory"], **work["memory_config"]),
        work["length"],
        work["batch"],
    )
    x_key, starts_key, key = jax.random.split(jax.random.key(cell.seeds[0]), 3)
    x = jax.random.normal(x_key, (length, batch, memory.d_model))
    starts = jax.random.bernoulli(starts_key, 1 / EPISODE_STEPS, (length, batch))
    params, state = memory.init(key, memory.d_model), memory.initial_state(batch)

    def learn(params: Any, x: jax.Array, starts: jax.Array) -> Any:
        y, gradient = jax.vjp(lambda params, x: memory.apply(params, state, x, starts)[1], params, x)
        return gradient(y)

    began = time.perf_counter()
    program = jax.jit(learn).lower(params, x, starts).compile()
    compile_seconds = time.perf_counter() - began
    analysis = program.memory_analysis()
    assert analysis is not None, f"{cell.device}: XLA says nothing of the memory that a program takes"
    scratch, room = int(analysis.temp_size_in_bytes), available_bytes(cell.device)
    found = {**describe(work), "compile_seconds": round(compile_seconds, 2), "scratch_bytes": scratch}
    if scratch > room:
        return {**found, "fits": False, "room_bytes": room}
    seconds = median_seconds(functools.partial(program, params, x, starts))

    # No episode ends on the way to the acting step, so that it acts on all that came before.
    after, _ = jax.jit(memory.apply)(params, state, x, jnp.zeros_like(starts))
    prepared = jax.jit(memory.prepare)(params)
    step = jax.jit(memory.step).lower(prepared, after, x[0], starts[0]).compile()
    acting = median_seconds(functools.partial(step, prepared, after, x[0], starts[0]))
    return {
        **found,
        "fits": True,
        "training_seconds": seconds,
        "training_ns_per_step": 1e9 * seconds / (length * batch),
        "acting_us": 1e6 * acting,
    }


def describe(work: Mapping[str, Any]) -> dict[str, Any]:
    """Count what is measured: parameters, numbers and bytes of a sequence's state, steps."""
    memory = make_memory(work["memory"], **work["memory_config"])
    state = jax.tree.leaves(jax.eval_shape(lambda: memory.initial_state(1)))
    return {
        "parameters": count_params(memory, memory.d_model),
        "state_numbers": sum(leaf.size for leaf in state),
        "state_bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in state),
        "steps": work["length"] * work["batch"],
    }


def estimate(work: Mapping[str, Any]) -> float:
    """Estimate the seconds that measuring takes on two cores, roughly."""
    growth = work["length"] / 128 if work["memory"] == "attention" else 1.0
    return float(15 + (_SAMPLES + 2) * work["length"] * work["batch"] * _SECONDS_PER_STEP * growth)


def median_seconds(program: Callable[[], Any]) -> float:
    """Return a call's time in seconds, the median over samples; short calls are repeated in a sample."""
    jax.block_until_ready(program())
    began = time.perf_counter()
    jax.block_until_ready(program())
    once = time.perf_counter() - began
    if once >= _LONG_SECONDS:
        return once
    repeats = max(1, round(_SAMPLE_SECONDS / max(once, 1e-7)))
    samples = []
    for _ in range(_SAMPLES):
        began = time.perf_counter()
        for _ in range(repeats):
            result = jax.block_until_ready(program())
        del result
        samples.append((time.perf_counter() - began) / repeats)
    return statistics.median(samples)
