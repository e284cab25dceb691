"""The jitted trainer."""

from __future__ import annotations

import functools
import math
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from s5_adapters.bench.checks import assert_same_parameters
from s5_adapters.bench.record import Recorder
from s5_adapters.bench.spec import Cell
from s5_adapters.core.files.weights import load_policy
from s5_adapters.purejax.rollout import collect
from s5_adapters.purejax.start import start_from
from s5_adapters.purejax.training import Programs

ROLLOUTS = 5


def run(cell: Cell, weights: Path | None, record: Recorder) -> None:
    """Train update by update; collecting is timed by itself afterwards, since both are one program."""
    assert weights is not None
    config = cell.config
    programs = Programs.of(config)
    problem = programs.problem
    policy = load_policy(weights)
    state = programs.init_state(jax.random.key(cell.seed), jnp.float32(config.learning_rate))
    state = start_from(state, policy, problem, config)
    assert_same_parameters(policy, state.params)
    record.facts["parameters"] = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    advance = functools.partial(programs.run_chunk, buffer_size=1)
    state, _ = jax.block_until_ready(advance(state, jnp.int32(0)))
    record.start()
    for update in range(1, config.num_updates + 1):
        state, metrics = jax.block_until_ready(advance(state, jnp.int32(1)))
        episode_return = float(metrics["episode_return"][0])
        returns = [] if math.isnan(episode_return) else [episode_return]
        record.updated(update * config.steps_per_update, returns)

    record.facts["compile_seconds"] = record.compiling
    rollout = jax.jit(functools.partial(collect, problem, config))
    jax.block_until_ready(rollout(state.params, state.carry, state.key))
    seconds = []
    for _ in range(ROLLOUTS):
        began = time.perf_counter()
        jax.block_until_ready(rollout(state.params, state.carry, state.key))
        seconds.append(time.perf_counter() - began)
    collecting = statistics.median(seconds)
    for before, row in zip([{"seconds": 0.0}, *record.rows], record.rows, strict=False):
        row |= {"collect": collecting, "update": row["seconds"] - before["seconds"] - collecting}
