"""A stack runs in chunks of time, and stores for its backward pass what it was told to."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from s5_adapters.core import make_memory
from s5_adapters.core.memories.chunks import FULL_STEPS, LEAST_ROWS, run_in_chunks
from s5_adapters.core.xla.recompute import after, recomputed
from tests.marks import slow

pytestmark = pytest.mark.full_compilation

WIDTH, LENGTH, BATCH = 32, 512, 4
ARRAY_BYTES = LENGTH * BATCH * WIDTH * 4


def running_sum(lengths: list[int]) -> Any:
    """A body that adds up its inputs, and notes how many steps it was traced for."""

    def body(carry: Array, x: Array) -> tuple[Array, Array]:
        lengths.append(len(x))
        sums = carry + jnp.cumsum(x, axis=0)
        return sums[-1], sums

    return body


@pytest.mark.parametrize(
    ("length", "rows", "chunks"),
    [
        (96, 64, {32}),  # 64 rows are 32 steps of 2
        (90, 64, {30}),  # a little less than 32, and nothing remains
        (64, 64, {32}),
        (32, 64, {32}),
        (31, 64, {31}),  # one chunk holds it all
        (34, 64, {17}),  # half of 32 and a bit
        (97, 64, {32, 1}),  # a prime: a remainder
        (5, 1, {1}),  # fewer rows than the batch has: a step at a time
        (97, 0, {97}),
    ],
)
def test_chunks_are_as_long_as_allowed_and_equal_where_they_can_be(
    length: int, rows: int, chunks: set[int]
) -> None:
    x = jnp.asarray(np.random.default_rng(0).integers(-9, 9, (length, 2, 3)), jnp.float32)
    lengths: list[int] = []
    carry, sums = run_in_chunks(running_sum(lengths), jnp.zeros((2, 3)), x, rows=rows, remat="none")
    assert set(lengths) == chunks
    np.testing.assert_array_equal(sums, np.cumsum(x, axis=0))
    np.testing.assert_array_equal(carry, np.sum(x, axis=0))


@pytest.mark.parametrize(("batch", "steps"), [(1, LEAST_ROWS), (8, FULL_STEPS), (64, 16), (2048, 1)])
def test_full_takes_shorter_chunks_for_small_batches(batch: int, steps: int) -> None:
    lengths: list[int] = []
    carry, x = jnp.zeros((batch, 1)), jnp.zeros((1024, batch, 1))
    jax.eval_shape(lambda x: run_in_chunks(running_sum(lengths), carry, x, remat="full"), x)
    assert set(lengths) == {steps}


def gradient_bytes(n_layers: int, remat: str, chunk_rows: int) -> int:
    """Temporary bytes of the gradient of parameters and inputs."""
    memory = make_memory(
        "s5", d_model=WIDTH, d_state=WIDTH, n_layers=n_layers, remat=remat, chunk_rows=chunk_rows
    )
    x, starts = jnp.ones((LENGTH, BATCH, WIDTH)), jnp.zeros((LENGTH, BATCH), bool)
    state = memory.initial_state(BATCH)
    params = memory.init(jax.random.key(0), WIDTH)

    def gradient(params: Any, x: Array) -> Any:
        y, vjp = jax.vjp(lambda params, x: memory.apply(params, state, x, starts)[1], params, x)
        return vjp(y)

    analysis: Any = jax.jit(gradient).lower(params, x).compile().memory_analysis()
    return int(analysis.temp_size_in_bytes)


@pytest.mark.parametrize("chunk_rows", [128, *slow(0)])
def test_full_keeps_one_array_a_layer_and_chunk(chunk_rows: int) -> None:
    # Where a compiler merges the recomputation with the forward pass, some ten arrays a layer are kept.
    array = ARRAY_BYTES * (chunk_rows or LENGTH * BATCH) // (LENGTH * BATCH)
    states = 0 if chunk_rows == 0 else ARRAY_BYTES * BATCH // chunk_rows
    small, large = (gradient_bytes(n, "full", chunk_rows) for n in (2, 4))
    assert (large - small) / 2 <= 1.5 * (array + states)


def test_stored_dots_take_less_than_everything() -> None:
    assert gradient_bytes(1, "dots", 128) < 0.4 * gradient_bytes(1, "none", 128)


@pytest.mark.parametrize("known", [1.0, -0.0, np.nan, np.inf, -np.inf])
def test_waiting_changes_nothing(known: float) -> None:
    inputs = {"a": jnp.array([1.5, np.inf, -np.inf, 0.0]), "b": jnp.ones(2, jnp.bfloat16)}
    got = jax.jit(after)(jnp.full((2, 2), known), inputs)
    jax.tree.map(np.testing.assert_array_equal, got, inputs)
    assert got["b"].dtype == jnp.bfloat16
    # Nor has it a gradient with respect to what is waited for.
    assert jax.grad(lambda known: after(known, inputs)["a"][0])(2.0) == 0.0


def test_a_recomputed_block_has_the_blocks_gradient() -> None:
    def block(inputs: tuple[Array, Array], keep: Array) -> tuple[Array, Array]:
        x, w = inputs
        y = jnp.where(keep, jnp.sin(x * w), 0.0)
        return y.sum(), y

    x, w, keep = jnp.linspace(-1, 1, 6), jnp.arange(6.0), jnp.arange(6) % 2 == 0
    calls: list[Any] = [lambda x, w, run=run: run((x, w), keep) for run in (block, recomputed(block))]
    (expected, pull), (got, pull_again) = (jax.vjp(call, x, w) for call in calls)
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    jax.tree.map(np.testing.assert_array_equal, pull_again(got), pull(got))
    second = [jax.grad(lambda x, call=call: jax.grad(lambda x: call(x, w)[0])(x).sum())(x) for call in calls]
    np.testing.assert_allclose(second[1], second[0], rtol=1e-6)


def test_a_nan_cotangent_stays_with_its_batch_element() -> None:
    memory = make_memory("s5", d_model=8, d_state=8, n_layers=2, remat="full", chunk_rows=8)
    x, starts, state = jnp.ones((12, 2, 8)), jnp.zeros((12, 2), bool), memory.initial_state(2)
    params = memory.init(jax.random.key(0), 8)
    _, vjp = jax.vjp(lambda x: memory.apply(params, state, x, starts)[1], x)
    (gradient,) = vjp(jnp.ones((12, 2, 8)).at[8, 0, 0].set(jnp.nan))
    assert np.isnan(gradient[8, 0]).any()
    assert np.isfinite(gradient[:, 1]).all()
