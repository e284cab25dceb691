"""What a run would take, before it is begun: parameters, memory, compile time, time of an update."""

import dataclasses
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from s5_adapters.purejax.algorithms.algorithm import Algorithm
from s5_adapters.purejax.training import Programs

_SAMPLES = 4096
"""Environment steps of a measured update, about; a longer rollout's is taken to grow with its steps."""


class Estimate(NamedTuple):
    """What a run takes on this machine."""

    parameters: int
    """Numbers that are learned."""
    parameter_bytes: int
    state_bytes: int
    """What a checkpoint holds: parameters, optimiser, environments, memories."""
    memory_bytes: int
    """Of the compiled update, as XLA has planned it: the state and everything that passes."""
    compile_seconds: float
    seconds_per_update: float
    measured_steps: int
    """Steps of the rollout that was measured, at most the configuration's ``num_steps``."""


def estimate(config: Algorithm) -> Estimate:
    """Compile a run's update and time one over a rollout that may be shorter; nothing is kept of it.

    Args:
        config: what would be trained.

    Raises:
        ValueError: one line, as ``make_train``.
    """
    key, rate = jax.random.key(0), jnp.float32(config.learning_rate)
    programs = Programs.of(config)
    state = jax.eval_shape(programs.init_state, key, rate)
    started = time.perf_counter()
    update = _compiled(programs, state)
    compile_seconds = time.perf_counter() - started
    planned = update.memory_analysis()

    measured = dataclasses.replace(config, num_steps=min(config.num_steps, -(-_SAMPLES // config.num_envs)))
    if measured != config:
        programs = Programs.of(measured)
        update = _compiled(programs, jax.eval_shape(programs.init_state, key, rate))
    seconds = _seconds_of_an_update(update, programs.init_state(key, rate))
    return Estimate(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        parameter_bytes=_bytes(state.params),
        state_bytes=_bytes(state),
        memory_bytes=planned.argument_size_in_bytes
        + planned.output_size_in_bytes
        - planned.alias_size_in_bytes
        + planned.temp_size_in_bytes,
        compile_seconds=compile_seconds,
        seconds_per_update=seconds * config.num_steps / measured.num_steps,
        measured_steps=measured.num_steps,
    )


def _compiled(programs: Programs, state: Any) -> Any:
    return programs.run_chunk.lower(state, jnp.int32(1), buffer_size=1).compile()


def _seconds_of_an_update(update: Any, state: Any) -> float:
    """Return the shorter of two updates' times, after one that is not timed."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        state, _ = jax.block_until_ready(update(state, jnp.int32(1)))
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def _bytes(tree: Any) -> int:
    """Bytes of arrays; of keys, their words'."""
    leaves = (
        jax.eval_shape(jax.random.key_data, leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        for leaf in jax.tree.leaves(tree)
    )
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
