"""What a run would take, before it is begun: parameters, memory, compile time, time of an update."""

import dataclasses
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from s5_adapters.core import checks
from s5_adapters.purejax.algorithms.algorithm import Algorithm
from s5_adapters.purejax.split import split_of
from s5_adapters.purejax.split_programs import SplitPrograms, programs_on
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
    """Of the compiled update on each device, as XLA has planned it: the state and everything that passes."""
    compile_seconds: float
    seconds_per_update: float
    measured_steps: int
    """Steps of the rollout that was measured, at most the configuration's ``num_steps``."""


def estimate(config: Algorithm, devices: int = 1) -> Estimate:
    """Compile a run's update and time one over a rollout that may be shorter; nothing is kept of it.

    Args:
        config: what would be trained.
        devices: over how many of this process's devices, at least 1.

    Raises:
        ValueError: one line, as ``Trainer``.
    """
    split = split_of(checks.integer("devices", devices), devices)
    programs = programs_on(config, split)
    state = programs.init_state(jax.random.key(0), jnp.float32(config.learning_rate))
    started = time.perf_counter()
    update = _compiled(programs, state)
    compile_seconds = time.perf_counter() - started
    planned, parameters, state_bytes = update.memory_analysis(), jax.tree.leaves(state.params), _bytes(state)

    measured = dataclasses.replace(config, num_steps=min(config.num_steps, -(-_SAMPLES // config.num_envs)))
    if measured != config:
        update = _compiled(programs_on(measured, split), state)
    seconds = _seconds_of_an_update(update, state)
    return Estimate(
        parameters=sum(leaf.size for leaf in parameters),
        parameter_bytes=_bytes(parameters),
        state_bytes=state_bytes,
        memory_bytes=planned.argument_size_in_bytes
        + planned.output_size_in_bytes
        - planned.alias_size_in_bytes
        + planned.temp_size_in_bytes,
        compile_seconds=compile_seconds,
        seconds_per_update=seconds * config.num_steps / measured.num_steps,
        measured_steps=measured.num_steps,
    )


def _compiled(programs: Programs | SplitPrograms, state: Any) -> Any:
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
