"""The GPU kernel, in Pallas' interpreter against a float64 loop, and lowered for CUDA where no GPU is."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5_adapters.core.recurrence import pallas as scan_pallas
from s5_adapters.core.recurrence.scan import linear_recurrence, resettable_scan
from s5_adapters.core.recurrence.table import measured_method
from s5_adapters.core.xla import platform

from .gpu_code import TRITON_CALL, lower_for_cuda, problem_shapes, triton_ir
from .reference import recurrence, recurrence_gradients, relative_error

# Few steps a block keep the interpreter's program small; lengths then cover blocks, a remainder, and neither.
STEPS = 4
SIZES = [(1, 1, 1, 1), (7, 3, 2, 5), (6, 2, 2, 33), (11, 70, 1, 1)]
SEGMENTS = {(7, 3, 2, 5): 4, (11, 70, 1, 1): 2}
"""Sizes whose time is cut: into a whole segment and a shorter one, and into ones too short for a block."""


def problem(length: int, batch: int, parts: int, width: int) -> tuple[np.ndarray, ...]:
    """Decay, inputs, starts, initial state and a cotangent in component form, one step in ten a reset."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    shape = (length, batch, parts, width)
    return (
        0.5 * normal(parts, width),
        normal(*shape),
        rng.random((length, batch)) < 0.1,
        normal(*shape[1:]),
        normal(*shape),
    )


def plain(x: np.ndarray) -> np.ndarray:
    """Components ``(..., c, P)`` as numbers ``(..., P)`` in double precision."""
    return x[..., 0, :].astype(np.float64) if x.shape[-2] == 1 else x[..., 0, :] + 1j * x[..., 1, :]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_kernel_and_adjoint_equal_a_float64_loop(size: tuple[int, ...]) -> None:
    decay, inputs, starts, initial, cotangent = problem(*size)
    cut: dict[str, Any] = {"steps": STEPS, "segment": SEGMENTS.get(size)}

    @jax.jit
    def run(decay: Any, inputs: Any, starts: Any, initial: Any, cotangent: Any) -> Any:
        states = scan_pallas.pallas(decay, inputs, starts, initial, **cut)
        return states, scan_pallas.pallas_adjoint(decay, cotangent, starts, states, initial, **cut)

    states, gradients = run(decay, inputs, starts, initial, cotangent)
    arguments = (plain(decay), plain(inputs), starts, plain(initial))
    assert relative_error(plain(np.asarray(states)), recurrence(*arguments)) <= 1e-6
    # The reference follows JAX's convention for complex numbers; in components a gradient is its conjugate.
    expected = recurrence_gradients(*arguments, plain(cotangent).conj())
    for ours, theirs in zip(gradients, expected, strict=True):
        assert relative_error(plain(np.asarray(ours)), np.conj(theirs)) <= 1e-5


def test_a_nan_before_a_reset_crosses_it_in_neither_direction() -> None:
    decay, inputs, _, initial, cotangent = problem(6, 2, 2, 3)
    starts = np.zeros((6, 2), bool)
    starts[3] = True
    inputs[1] = np.nan
    states = scan_pallas.pallas(decay, inputs, starts, initial, steps=STEPS, segment=2)
    assert np.isnan(states[1:3]).all()
    assert np.isfinite(states[3:]).all()
    cotangent[4] = np.nan
    _, adjoint, into_initial = scan_pallas.pallas_adjoint(
        decay, cotangent, starts, states, initial, steps=STEPS, segment=2
    )
    assert np.isfinite(adjoint[:3]).all()
    assert np.isfinite(into_initial).all()


def test_by_name_with_vmap_and_without_resets() -> None:
    decay, inputs, _, initial, cotangent = problem(5, 2, 1, 3)
    arguments = decay[0], inputs[:, :, 0], initial[:, 0]

    def run(method: str, decay: Any, inputs: Any, initial: Any) -> Any:
        states, vjp = jax.vjp(
            lambda d, u, h: linear_recurrence(d, u, None, h, method=method), decay, inputs, initial
        )
        return states, vjp(jnp.asarray(cotangent[:, :, 0]))

    seeds = jax.tree.map(lambda x: np.stack([x, 0.5 * x]), arguments)
    ours = jax.jit(jax.vmap(partial(run, "pallas")))(*seeds)
    theirs = jax.jit(jax.vmap(partial(run, "sequential")))(*seeds)
    for mine, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert relative_error(mine, expected) <= 1e-6


def test_bfloat16_inputs_keep_a_float32_state() -> None:
    decay, inputs, starts, initial, cotangent = problem(5, 2, 2, 3)
    narrow = jnp.asarray(inputs, jnp.bfloat16)
    results = {}
    for method in ("pallas", "sequential"):
        states, vjp = jax.vjp(
            lambda u, method=method: resettable_scan(decay, u, starts, initial, method=method), narrow
        )
        results[method] = states, *vjp(jnp.asarray(cotangent))
    (states, gradient), (expected, expected_gradient) = results["pallas"], results["sequential"]
    assert states.dtype == jnp.float32
    assert gradient.dtype == jnp.bfloat16
    assert relative_error(states, expected) <= 1e-6
    assert relative_error(gradient.astype(jnp.float32), expected_gradient.astype(jnp.float32)) <= 1e-2


# JAX 0.11 announces that this way to a kernel will go; 0.10 has no other that runs on every GPU.
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("dtype", "batch", "kernels"), [(jnp.float32, 64, 2), (jnp.bfloat16, 8, 4)])
def test_lowers_for_cuda_without_a_gpu(dtype: Any, batch: int, kernels: int) -> None:
    def forward_backward(decay: Any, inputs: Any, starts: Any, initial: Any, cotangent: Any) -> Any:
        states, vjp = jax.vjp(
            lambda d, u, h: resettable_scan(d, u, starts, h, method="pallas"), decay, inputs, initial
        )
        return states, vjp(cotangent)

    lowered = lower_for_cuda(forward_backward, *problem_shapes(1024, batch, 2, 128, dtype))
    assert lowered.as_text().count(TRITON_CALL) == kernels


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("batch", "bits"), [(2**12, 32), (2**14, 64)])
def test_offsets_have_64_bits_where_numbers_reach_2_to_the_31(batch: int, bits: int) -> None:
    size = 512, batch, 2, 128
    assert (np.prod(size) >= 2**31) == (bits == 64)
    decay, inputs, starts, initial, states = problem_shapes(*size)
    few = {"steps": STEPS}
    forward = lower_for_cuda(partial(scan_pallas.pallas, **few), decay, inputs, starts, initial)
    adjoint = lower_for_cuda(
        partial(scan_pallas.pallas_adjoint, **few), decay, states, starts, states, initial
    )
    # What is read before the loop and in it, and what is written, by parts.
    accesses = {"resettable_scan": 3 * 2 * STEPS, "resettable_scan_adjoint": 5 * 2 * STEPS}
    kernels = triton_ir(forward) | triton_ir(adjoint)
    assert set(kernels) == set(accesses)
    for name, code in kernels.items():
        offsets = [line for line in code.splitlines() if "tt.addptr" in line]
        assert sum(f"tensor<32xi{bits}>" in line for line in offsets) >= accesses[name]


def test_a_step_of_too_many_numbers_is_refused() -> None:
    decay, inputs, starts, initial, _ = problem_shapes(2, 2**23, 2, 128)
    with pytest.raises(ValueError, match="2147483648 numbers a step, expected at most 1073741824"):
        jax.eval_shape(scan_pallas.pallas, decay, inputs, starts, initial)


def test_auto_takes_the_kernel_where_it_runs_and_plain_xla_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    class Device:
        compute_capability = "9.0"

    monkeypatch.setattr("s5_adapters.core.recurrence.table.default_platform", lambda: "gpu")
    monkeypatch.setattr(platform, "default_platform", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [Device()])
    auto = partial(measured_method, length=1024, batch=64)
    assert auto(width=128) == "mosaic"
    assert auto(width=32) == "pallas"
    for other in ("8.0", "12.0"):  # the one has no such unit, the other too little shared memory
        monkeypatch.setattr(Device, "compute_capability", other)
        assert auto(width=128) == "pallas"
    monkeypatch.setattr(Device, "compute_capability", "7.0")
    assert auto(width=128) == "associative"
    monkeypatch.setattr(Device, "compute_capability", "9.0")
    monkeypatch.setattr(platform, "find_spec", lambda name: None if "triton" in name else name)
    assert auto(width=32) == "mosaic"
    monkeypatch.setattr(platform, "find_spec", lambda name: None)
    assert auto(width=128) == "associative"
