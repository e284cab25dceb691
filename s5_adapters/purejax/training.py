"""A whole training run as one pure function, to be jitted, and vmapped over seeds and learning rates."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from s5_adapters.core.xla.platform import default_platform
from s5_adapters.core.xla.shared import Shared
from s5_adapters.purejax.algorithms.algorithm import Algorithm, TrainState
from s5_adapters.purejax.algorithms.metrics import Metrics
from s5_adapters.purejax.config import TrainConfig
from s5_adapters.purejax.problem import Problem, build_problem


class TrainResult(NamedTuple):
    """The result of a whole run."""

    state: TrainState
    metrics: Metrics
    """Each ``(num_updates,)`` float32; the algorithm's ``METRICS`` says what they are."""


# As ``jax.default_matmul_precision`` calls what it means on a GPU. There TF32 is the default; by the name of
# its algorithm, TF32_TF32_F32, JAX 0.11 refuses to compile the smallest products. XLA's CPU backend does not
# compile every product under these names, and has no TF32.
_PRECISIONS = {"tensorfloat32": "default", "bfloat16": "BF16_BF16_F32"}


def _matmul_precision(config: TrainConfig) -> str | None:
    if config.precision == "default":
        return None
    if default_platform() == "cpu":
        return config.precision
    return _PRECISIONS.get(config.precision, config.precision)


def update_step(problem: Problem, config: Algorithm, state: TrainState) -> tuple[TrainState, Metrics]:
    """Return one update at the configuration's precision; the metrics are float32 scalars."""
    with jax.default_matmul_precision(_matmul_precision(config)):
        return config.update(problem, state)


def run_updates(
    problem: Problem, config: Algorithm, state: TrainState, num_updates: int | jax.Array, buffer_size: int
) -> tuple[TrainState, Metrics]:
    """Do ``num_updates`` updates, a number that may be traced, and return the metrics of each.

    The loop's bound and its first state pass an optimisation barrier, so XLA compiles the same loop whether
    they are constants (in ``train``) or arguments (in ``Trainer``): that is why both give the same bits.

    Returns:
        The state, and metrics of shape ``(buffer_size,)`` whose first ``num_updates`` entries are set.
    """
    state, bound = jax.lax.optimization_barrier((state, jnp.int32(num_updates)))
    empty = {name: jnp.zeros(buffer_size, jnp.float32) for name in config.METRICS}

    def body(index: jax.Array, loop: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
        state, buffer = loop
        state, metrics = jax.lax.optimization_barrier(update_step(problem, config, state))
        return state, {name: buffer[name].at[index].set(metrics[name]) for name in config.METRICS}

    result: tuple[TrainState, Metrics] = jax.lax.fori_loop(0, bound, body, (state, empty))
    return result


class Programs(Shared):
    """The compiled programs of a configuration, kept for as long as somebody holds this.

    Args:
        config: what to train.

    Attributes:
        problem: the environment and the network.
        init_state: ``(key, learning_rate) -> TrainState``.
        run_chunk: ``(state, num_updates, buffer_size=...)``: ``run_updates``, compiled once for all lengths;
            the state given is used up.
        place: puts a state where ``run_chunk`` expects it.
        whole: gives a state as the host can read it.
    """

    def __init__(self, config: Algorithm):
        super().__init__(config)
        self.problem = problem = build_problem(config)

        def init_state(key: jax.Array, learning_rate: jax.Array) -> TrainState:
            return config.init_state(problem, key, learning_rate)

        def run_chunk(
            state: TrainState, num_updates: jax.Array, *, buffer_size: int
        ) -> tuple[TrainState, Metrics]:
            return run_updates(problem, config, state, num_updates, buffer_size)

        self.place: Callable[[TrainState], TrainState] = lambda state: state
        self.whole: Callable[[TrainState], TrainState] = lambda state: state
        self.init_state: Any = jax.jit(init_state)
        self.run_chunk: Any = jax.jit(run_chunk, static_argnames="buffer_size", donate_argnames="state")


def make_train(config: Algorithm) -> Callable[..., TrainResult]:
    """Build a whole training run as a pure function.

    ``train(key, learning_rate=None) -> TrainResult`` takes a typed key (``jax.random.key``) and perhaps a
    learning rate in place of the configuration's. Both may be traced:
    ``jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(0), 8))`` trains eight seeds in one program.

    A pure function cannot stop at a number that is not finite: ``metrics["fault"]`` is then no longer -1, and
    ``config.name_fault`` says which number it was. ``Trainer`` stops, and names the environment too.

    Raises:
        ValueError: one line, where the configuration names something that does not exist or fit, or its
            environment does not do what its interface says.
    """
    programs = Programs.of(config)

    def train(key: jax.Array, learning_rate: float | jax.Array | None = None) -> TrainResult:
        rate = jnp.float32(config.learning_rate if learning_rate is None else learning_rate)
        state = programs.init_state(key, rate)
        updates = config.num_updates
        return TrainResult(*run_updates(programs.problem, config, state, updates, updates))

    return train
