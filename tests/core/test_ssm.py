"""The S5 stack against a transcription of the papers, and the properties of its initialisation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5_adapters.core import make_memory
from s5_adapters.core.memories.s5 import block_hippo
from tests.marks import slow

from . import s5_reference
from .reference import relative_error

SMALL = {"d_model": 6, "d_state": 8, "n_layers": 2}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"discretization": "bilinear"},
    {"activation": "half_glu1"},
    {"activation": "half_glu2", "norm": "post"},
    {"activation": "gelu", "norm": "pre"},
    {"norm": "pre", "gtrxl_norm": True},
    {"gtrxl_norm": True, "activation": "gelu", "discretization": "bilinear"},
    {"n_blocks": 2, "norm": "post"},
    {"clip_eigenvalues": True},
    {"n_layers": 1, "dt_min": 0.1, "dt_max": 1.0},
]
every_variant = pytest.mark.parametrize("variant", VARIANTS, ids=str)


def problem(memory: Any, length: int, batch: int = 3, width: int = 5, seed: int = 0) -> tuple[Any, ...]:
    """Parameters with no leaf at a special value, a state that is not zero, episodes of 10 steps."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(length, batch, width)).astype(np.float32)
    starts = rng.random((length, batch)) < 0.1
    state = tuple(rng.normal(size=(batch, *shape)).astype(np.float32) for shape in memory.state_shape)
    special = {
        "lambda_re": lambda shape: rng.uniform(-1.5, -0.1, shape),
        "lambda_im": lambda shape: rng.normal(0, 20, shape),
        "log_dt": lambda shape: rng.uniform(np.log(memory.dt_min), np.log(memory.dt_max), shape),
        "norm_scale": lambda shape: rng.uniform(0.5, 1.5, shape),
    }
    shapes = memory.param_shapes(width)
    params = {
        name: special.get(name, lambda shape: rng.normal(0, 0.5, shape))(leaf.shape).astype(np.float32)
        for name, leaf in shapes.items()
    }
    if memory.clip_eigenvalues:
        params["lambda_re"][..., ::2] = 0.3
    return params, state, x, starts


def assert_same(got: tuple[Any, Any], expected: tuple[Any, Any], tolerance: float = 1e-5) -> None:
    for name, ours, theirs in zip(("state", "y"), got, expected, strict=True):
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            assert relative_error(a, b) <= tolerance, name


@every_variant
def test_sequence_and_steps_equal_the_papers_equations(variant: dict[str, Any]) -> None:
    memory = make_memory("s5", **{**SMALL, **variant})
    params, state, x, starts = problem(memory, length=23)
    got = jax.jit(memory.apply)(params, state, x, starts)
    expected = s5_reference.stack(params, state, x, starts, memory.config)
    assert_same(got, expected)

    prepared, step, outputs = jax.jit(memory.prepare)(params), jax.jit(memory.step), []
    for x_t, starts_t in zip(x, starts, strict=True):
        state, y = step(prepared, state, x_t, starts_t)
        outputs.append(y)
    assert_same((state, np.stack(outputs)), expected)


def test_inputs_of_the_models_own_width_are_not_projected() -> None:
    memory = make_memory("s5", **SMALL)
    arguments = problem(memory, length=20, width=memory.d_model)
    assert not any(name.startswith("input_") for name in arguments[0])
    assert_same(jax.jit(memory.apply)(*arguments), s5_reference.stack(*arguments, memory.config))


@pytest.mark.parametrize("method", ["sequential", "associative", "chunked"])
def test_every_scan_method_gives_the_same_layer(method: str) -> None:
    memory = make_memory("s5", **SMALL, method=method)
    arguments = problem(memory, length=83)
    assert_same(jax.jit(memory.apply)(*arguments), s5_reference.stack(*arguments, memory.config))


@pytest.mark.parametrize(("length", "batch"), [(1, 1), (1031, 2), (2500, 1), (7, 400)])
def test_awkward_lengths_and_batches(length: int, batch: int) -> None:
    # Whatever the stack does in chunks of time must not show: primes, one step, a remainder, a wide batch.
    memory = make_memory("s5", **SMALL)
    arguments = problem(memory, length=length, batch=batch)
    assert_same(jax.jit(memory.apply)(*arguments), s5_reference.stack(*arguments, memory.config))


def directional_derivative(loss: Any, params: dict[str, Any], name: str, direction: Any) -> float:
    """Central difference of a float64 loss along one leaf's direction."""
    step = 1e-6

    def at(offset: float) -> float:
        return loss({**params, name: np.asarray(params[name], np.float64) + offset * direction})

    return (at(step) - at(-step)) / (2 * step)


@pytest.mark.parametrize(
    "variant",
    [
        {"norm": "pre", "gtrxl_norm": True},
        {"discretization": "bilinear", "norm": "post"},
        # 31 steps of 2 rows in chunks of 16 rows: three chunks and a remainder.
        {"chunk_rows": 16, "remat": "dots", "method": "chunked"},
        *slow(
            {"chunk_rows": 16, "remat": "none", "method": "sequential"},
            {"chunk_rows": 16, "remat": "full", "method": "associative"},
            {"chunk_rows": 0, "remat": "dots", "method": "sequential"},
        ),
    ],
    ids=str,
)
def test_parameter_gradients_equal_finite_differences_of_the_papers_equations(
    variant: dict[str, Any],
) -> None:
    memory = make_memory("s5", **{**SMALL, **variant})
    params, state, x, starts = problem(memory, length=31, batch=2)
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(31, 2, memory.d_model))

    def loss(params: Any) -> Any:
        return jnp.sum(memory.apply(params, state, x, starts)[1] * jnp.asarray(weights, jnp.float32))

    def exact_loss(params: Any) -> float:
        return float(np.sum(s5_reference.stack(params, state, x, starts, memory.config)[1] * weights))

    gradients = jax.jit(jax.grad(loss))(params)
    assert set(gradients) == set(params)
    for name, leaf in gradients.items():
        gradient = np.asarray(leaf, np.float64)
        scale = np.linalg.norm(gradient)
        assert scale > 0, name
        noise = rng.normal(size=leaf.shape)
        for direction in (gradient / scale, noise / np.linalg.norm(noise)):
            expected = directional_derivative(exact_loss, params, name, direction)
            assert abs(np.sum(gradient * direction) - expected) <= 2e-4 * scale, name


def fresh(memory: Any) -> Any:
    """Parameters as `init` makes them."""
    return jax.jit(memory.init, static_argnums=1)(jax.random.key(3), memory.d_model)


@pytest.mark.parametrize("n_blocks", [1, 2, 4])
def test_blocks_repeat_a_smaller_hippo(n_blocks: int) -> None:
    memory = make_memory("s5", d_model=4, d_state=32, n_blocks=n_blocks)
    params = fresh(memory)
    np.testing.assert_allclose(params["lambda_re"], -0.5, rtol=1e-6)
    block = np.linalg.eigvals(s5_reference.hippo_normal(32 // n_blocks))
    expected = np.sort(np.tile(block[block.imag < 0].imag, n_blocks))
    found = np.sort(-np.abs(np.asarray(params["lambda_im"][0])))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_fresh_input_matrix_is_real_in_the_original_basis() -> None:
    # V holds the eigenvectors of the kept half, so 2 Re(V B~) is the real matrix B that was drawn, and
    # projecting it back gives B~ again. A B~ drawn without regard to the basis fails this.
    size, width = 12, 300
    memory = make_memory("s5", d_model=width, d_state=size)
    params = fresh(memory)
    eigenvalues, basis = block_hippo(size, 1)
    hippo = s5_reference.hippo_normal(size)
    np.testing.assert_allclose(hippo @ basis, basis * eigenvalues, atol=1e-12)
    np.testing.assert_allclose(basis.conj().T @ basis, np.eye(size // 2), atol=1e-12)

    b = np.asarray(params["B"][0, :, 0] + 1j * params["B"][0, :, 1]).T
    drawn = 2 * (basis @ b).real
    np.testing.assert_allclose(basis.conj().T @ drawn, b, atol=1e-6)
    assert np.std(drawn) == pytest.approx(1 / np.sqrt(width), rel=0.05)


@pytest.mark.parametrize("batch", [16, 17, 40, 64, 65])
def test_a_step_in_groups_equals_the_sequence(batch: int) -> None:
    memory = make_memory("s5", d_model=256, d_state=8, n_layers=2)  # wide enough to be cut
    params, state, x, starts = problem(memory, 1, batch)
    expected_state, expected_y = jax.jit(memory.apply)(params, state, x, starts)
    prepared = jax.jit(memory.prepare)(params)
    assert_same(jax.jit(memory.step)(prepared, state, x[0], starts[0]), (expected_state, expected_y[0]))
    products = str(jax.make_jaxpr(memory.step)(prepared, state, x[0], starts[0])).count("dot_general")
    groups = {16: 1, 17: 2, 40: 3, 64: 4, 65: 1}[batch]
    assert products == groups * (1 + 3 * memory.n_layers)


def test_time_steps_are_log_uniform() -> None:
    memory = make_memory("s5", d_model=2, d_state=400, n_blocks=20, n_layers=5, dt_min=0.01, dt_max=0.5)
    log_dt = np.asarray(fresh(memory)["log_dt"])
    assert log_dt.shape == (5, 200)
    assert np.exp(log_dt).min() >= 0.01 * (1 - 1e-6)
    assert np.exp(log_dt).max() <= 0.5 * (1 + 1e-6)
    assert not np.array_equal(log_dt[0], log_dt[1])
    uniform = (np.sort(log_dt.ravel()) - np.log(0.01)) / (np.log(0.5) - np.log(0.01))
    distance = np.max(np.abs(uniform - (np.arange(uniform.size) + 0.5) / uniform.size))
    assert distance < 1.95 / np.sqrt(uniform.size), "Kolmogorov-Smirnov at 0.1 %"


def test_clipped_eigenvalues_keep_a_growing_state_bounded() -> None:
    x, starts = np.ones((1000, 1, 4), np.float32), np.zeros((1000, 1), bool)
    sizes = {}
    for clip in (False, True):
        memory = make_memory("s5", d_model=4, d_state=4, dt_min=0.1, dt_max=0.1, clip_eigenvalues=clip)
        params = {**fresh(memory), "lambda_re": np.full((1, 2), 0.5, np.float32)}
        state, _ = jax.jit(memory.apply)(params, memory.initial_state(1), x, starts)
        sizes[clip] = float(jnp.max(jnp.abs(state[0])))
    assert sizes[True] < 1e3
    assert not sizes[False] < 1e6


def test_a_fresh_state_decays() -> None:
    memory = make_memory("s5", **SMALL, dt_min=0.1, dt_max=0.1)
    _, state, x, starts = problem(memory, length=200, width=memory.d_model)
    later, _ = jax.jit(memory.apply)(fresh(memory), state, np.zeros_like(x), np.zeros_like(starts))
    # Only the first layer sees no input; the second hears the first fade.
    first = np.hypot(*[leaf[:, 0] for leaf in state])
    np.testing.assert_allclose(np.hypot(*[leaf[:, 0] for leaf in later]), first * np.exp(-10.0), rtol=1e-3)
