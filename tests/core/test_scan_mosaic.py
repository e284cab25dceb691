"""The Mosaic GPU kernels: in Pallas' interpreter for GPUs against a float64 loop, and lowered for CUDA."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.pallas.mosaic_gpu.interpret import interpret_pallas_call
from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams, force_gpu_interpret_mode
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

from s5_adapters.core.recurrence import mosaic
from s5_adapters.core.recurrence.scan import resettable_scan

from .gpu_code import lower_for_cuda, problem_shapes
from .reference import recurrence, recurrence_gradients, relative_error
from .test_scan_pallas import plain, problem

# Whole groups of lanes and a number of steps that is no multiple of a block's; one group for all sequences,
# and time cut into a whole segment and a shorter one.
CASES = {(3, 2, 1, 128): {"steps": 2}, (5, 3, 2, 5): {"steps": 2, "segment": 4}}


@pytest.fixture
def interpreted() -> Iterator[None]:
    """Interpret kernels, and look for reads and writes of shared memory that nothing puts in order."""
    device = AbstractDevice("NVIDIA H100", num_cores=132, platform="gpu")
    with (
        force_gpu_interpret_mode(InterpretGPUParams(detect_races=True)),
        use_abstract_mesh(AbstractMesh((), (), abstract_device=device)),
    ):
        yield
    assert not interpret_pallas_call.get_races().races_found


def run(cut: dict[str, Any], dtype: Any = jnp.float32) -> Any:
    """States, and the gradients of decay, inputs and initial state."""

    @jax.jit
    def solve(decay: Any, inputs: Any, starts: Any, initial: Any, cotangent: Any) -> Any:
        states = mosaic.mosaic(decay, inputs.astype(dtype), starts, initial, **cut)
        return states, mosaic.mosaic_adjoint(decay, cotangent.astype(dtype), starts, states, initial, **cut)

    return solve


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("size", CASES, ids=str)
def test_kernel_and_adjoint_equal_a_float64_loop(size: tuple[int, ...]) -> None:
    decay, inputs, starts, initial, cotangent = problem(*size)
    starts[size[0] // 2, 0] = True
    states, gradients = run(CASES[size])(decay, inputs, starts, initial, cotangent)
    arguments = (plain(decay), plain(inputs), starts, plain(initial))
    assert relative_error(plain(np.asarray(states)), recurrence(*arguments)) <= 1e-6
    # The reference follows JAX's convention for complex numbers; in components a gradient is its conjugate.
    expected = recurrence_gradients(*arguments, plain(cotangent).conj())
    for ours, theirs in zip(gradients, expected, strict=True):
        assert relative_error(plain(np.asarray(ours)), np.conj(theirs)) <= 1e-5


@pytest.mark.usefixtures("interpreted")
def test_bfloat16_inputs_and_a_nan_before_a_reset() -> None:
    decay, inputs, starts, initial, cotangent = problem(3, 2, 1, 3)
    starts[:], starts[2, 0] = False, True
    inputs[0, 0], cotangent[2, 0] = np.nan, np.nan
    states, (_, adjoint, into_initial) = run({"steps": 2}, jnp.bfloat16)(
        decay, inputs, starts, initial, cotangent
    )
    assert states.dtype == jnp.float32
    assert adjoint.dtype == jnp.bfloat16
    assert np.isnan(states[:2, 0]).all()
    assert np.isfinite(states[2]).all()
    assert np.isnan(adjoint[2, 0].astype(np.float32)).all()
    assert np.isfinite(adjoint[:2].astype(np.float32)).all()
    assert np.isfinite(into_initial).all()
    narrow = plain(np.asarray(jnp.asarray(inputs, jnp.bfloat16).astype(jnp.float32)))[:, 1:]
    expected = recurrence(plain(decay), narrow, starts[:, 1:], plain(initial)[1:])
    assert relative_error(plain(np.asarray(states))[:, 1:], expected) <= 1e-6


@pytest.mark.usefixtures("interpreted")
def test_seeds_side_by_side() -> None:
    decay, inputs, starts, initial, _ = problem(3, 2, 1, 3)
    given = decay, inputs, starts, initial
    seeds = [np.stack([x, x if x.dtype == bool else 0.5 * x]) for x in given]
    states = jax.jit(jax.vmap(partial(mosaic.mosaic, steps=2, segment=2)))(*seeds)
    for i, ours in enumerate(np.asarray(states)):
        expected = recurrence(plain(seeds[0][i]), plain(seeds[1][i]), starts, plain(seeds[3][i]))
        assert relative_error(plain(ours), expected) <= 1e-6


def test_elsewhere_it_is_the_associative_scan() -> None:
    decay, inputs, starts, initial, cotangent = problem(5, 2, 2, 3)
    results = []
    for method in ("mosaic", "associative"):
        states, vjp = jax.vjp(
            lambda d, u, h, method=method: resettable_scan(d, u, starts, h, method=method),
            *(decay, inputs, initial),
        )
        results.append((states, *vjp(jnp.asarray(cotangent))))
    for ours, theirs in zip(*results, strict=True):
        assert relative_error(ours, theirs) <= 1e-6


@pytest.mark.parametrize(
    ("size", "dtype"), [((1024, 64, 2, 128), jnp.float32), ((1000, 8, 1, 32), jnp.bfloat16)], ids=str
)
@pytest.mark.parametrize("seeds", [None, 2], ids=["one", "vmap"])
def test_lowers_for_cuda_without_a_gpu(size: tuple[int, ...], dtype: Any, seeds: int | None) -> None:
    def forward_backward(decay: Any, inputs: Any, starts: Any, initial: Any, cotangent: Any) -> Any:
        states, vjp = jax.vjp(
            lambda d, u, h: resettable_scan(d, u, starts, h, method="mosaic"), decay, inputs, initial
        )
        return states, vjp(cotangent)

    function, shapes = forward_backward, problem_shapes(*size, dtype)
    if seeds is not None:
        function = jax.vmap(forward_backward)
        shapes = [jax.ShapeDtypeStruct((seeds, *shape.shape), shape.dtype) for shape in shapes]
    # Time is cut at the second size, which has too few lanes: two more kernels find where segments end.
    kernels = 2 if size[1] == 64 else 4
    assert lower_for_cuda(function, *shapes).as_text().count("@mosaic_gpu_v2") == kernels


def test_lowers_where_x64_is_on() -> None:
    decay, inputs, starts, initial, states = problem_shapes(1000, 8, 1, 32)
    with jax.enable_x64(True):
        lower_for_cuda(mosaic.mosaic, decay, inputs, starts, initial)
        lower_for_cuda(mosaic.mosaic_adjoint, decay, states, starts, states, initial)
