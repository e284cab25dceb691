"""The resettable linear recurrence: the one loop in time that a diagonal memory needs.

A diagonal state space model's state is ``x_t = decay * x_{t-1} + input_t`` (Smith et al. 2023, arXiv
2208.04933, eq. 2), cut at episode boundaries (Lu et al. 2023, arXiv 2303.03982, section 4). Its adjoint is
the same recurrence run the other way, so one function serves the forward pass, the backward pass and, with a
real decay, generalised advantage estimation. A decay that is the same at every step (S5, LRU) is the fast
path; one that the input chooses at every step (minGRU, Mamba) is an array over time.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.typing import ArrayLike

from s5_adapters.core.checks import nearest_names
from s5_adapters.core.recurrence import planar
from s5_adapters.core.recurrence.adjoint import KERNEL_ADJOINTS, recurrence_adjoint, varying_adjoint
from s5_adapters.core.recurrence.methods import METHODS, VARYING_METHODS, Method, sequential
from s5_adapters.core.recurrence.table import measured_method, varying_method
from s5_adapters.core.shapes import Bool, Float, Inexact

AUTO: Final = "auto"
STATES: Final = "states"
"""The states' name, by which a policy of storing for the backward pass finds them."""


def linear_recurrence(
    decay: Inexact[ArrayLike, "P"] | Inexact[ArrayLike, "T *batch P"],
    inputs: Inexact[ArrayLike, "T *batch P"],
    episode_starts: Bool[ArrayLike, "T *batch"] | None = None,
    initial_state: Inexact[ArrayLike, "*batch P"] | None = None,
    *,
    reverse: bool = False,
    method: str = AUTO,
) -> Inexact[Array, "T *batch P"]:
    """Solve ``x_t = decay_t * (1 - start_t) * x_{t-1} + input_t`` for all ``t``.

    Exact gradients for every floating argument, each in its argument's dtype, by one reversed recurrence that
    needs the decay and the states and nothing else. A reset selects, so that not even a NaN crosses it,
    forwards or in the gradient.

    Args:
        decay: real or complex; ``(P,)``, the same at every step, or ``(T, *batch, P)``, one for every step:
            ``decay_t`` multiplies the state that arrives at step ``t``.
        inputs: ``(T, *batch, P)`` real or complex. float32, complex64 or narrower; float64 and complex128
            under x64.
        episode_starts: ``(T, *batch)`` bool, True where the state is zeroed before that step's input is
            taken. None: nowhere.
        initial_state: ``(*batch, P)``, what the first step carries in. None: zeros.
        reverse: flip ``inputs``, ``episode_starts`` and a decay of every step in time, run forward and flip
            back. The state that arrives from ``t + 1`` is then dropped where ``episode_starts[t]``, so an
            advantage recurrence passes ``done``.
        method: ``"sequential"``, ``"associative"``, with one decay for all steps also ``"chunked"``,
            ``"pallas"`` and ``"mosaic"`` (GPU kernels, the second since Hopper; float32), or ``"auto"``:
            whichever a benchmark on this platform (``benchmarks/scan.py --write-table``) found fastest
            nearest to this length and batch.

    Returns:
        The states ``(T, *batch, P)``: complex if any floating argument is, in the widest of the arguments'
        precisions and at least float32.

    Raises:
        TypeError: an argument's dtype is not what it should be.
        ValueError: an argument's shape does not fit, or the method is unknown.

    """
    decay, inputs = _floating("decay", decay), _floating("inputs", inputs)
    initial_state = None if initial_state is None else _floating("initial_state", initial_state)
    varies = decay.ndim != 1
    if varies and (decay.ndim < 2 or decay.shape != inputs.shape):
        raise ValueError(f"decay: got shape {decay.shape}, expected (P,) or that of inputs, {inputs.shape}")
    if inputs.ndim < 2 or inputs.shape[-1] != decay.shape[-1]:
        raise ValueError(f"inputs: got shape {inputs.shape}, expected (time, *batch, {decay.shape[-1]})")
    length, *batch, width = inputs.shape
    starts = _starts(episode_starts, (length, *batch))
    if initial_state is not None and initial_state.shape != (*batch, width):
        raise ValueError(f"initial_state: got shape {initial_state.shape}, expected {(*batch, width)}")

    given = [a for a in (decay, inputs, initial_state) if a is not None]
    dtype = jnp.result_type(jnp.float32, *given)
    is_complex = jnp.issubdtype(dtype, jnp.complexfloating)
    rows = 1
    for n in batch:
        rows *= n

    def components(x: Array, shape: tuple[int, ...]) -> Array:
        x = x.astype(dtype)
        return planar.from_complex(x).reshape(*shape, 2, width) if is_complex else x.reshape(*shape, 1, width)

    first = jnp.zeros((*batch, width), dtype) if initial_state is None else initial_state
    states = resettable_scan(
        components(decay, (length, rows) if varies else ()),
        components(inputs, (length, rows)),
        None if starts is None else starts.reshape(length, rows),
        components(first, (rows,)),
        reverse=reverse,
        method=method,
    )
    return (planar.to_complex(states) if is_complex else states[:, :, 0]).reshape(inputs.shape)


def resettable_scan(
    decay: Float[Array, "c P"] | Float[Array, "T B c P"],
    inputs: Float[Array, "T B c P"],
    starts: Bool[Array, "T B"] | None,
    initial: Float[Array, "B c P"],
    *,
    reverse: bool = False,
    method: str = AUTO,
) -> Float[Array, "T B c P"]:
    """Solve the recurrence in component form, unchecked: what the layers of this package call.

    Args:
        decay: ``(c, P)`` or ``(T, B, c, P)``, c = 1 for a real and 2 for a complex recurrence (see
            ``planar``).
        inputs: ``(T, B, c, P)``, of the other floating arguments' real dtype or a narrower one.
        starts: ``(T, B)`` bool, or None for no resets.
        initial: ``(B, c, P)``.
        reverse: as for ``linear_recurrence``.
        method: as for ``linear_recurrence``.

    Returns:
        The states ``(T, B, c, P)``.

    """
    is_wide = decay.dtype == jnp.float64
    methods = _methods(decay)
    if method == AUTO and methods is VARYING_METHODS:
        method = varying_method()
    if method == AUTO:
        method = measured_method(length=inputs.shape[0], batch=inputs.shape[1], width=inputs.shape[3])
        if method in KERNEL_ADJOINTS and is_wide:
            method = "associative"
    if method in KERNEL_ADJOINTS and is_wide:
        raise TypeError(f"method {method!r}: got dtype {decay.dtype}, expected float32 or complex64")
    if method not in methods:
        raise ValueError(f"method: got {method!r}, expected one of {nearest_names(method, [AUTO, *methods])}")
    return _scan(method, reverse, decay, inputs, starts, initial)


def _methods(decay: Array) -> dict[str, Method]:
    return METHODS if decay.ndim == 2 else VARYING_METHODS


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scan(
    method: str, reverse: bool, decay: Array, inputs: Array, starts: Array | None, initial: Array
) -> Array:
    if not inputs.size:
        return jnp.zeros(inputs.shape, initial.dtype)
    if method not in KERNEL_ADJOINTS:
        inputs = inputs.astype(initial.dtype)
    run = _methods(decay)[method]
    if not reverse:
        return run(decay, inputs, starts, initial)
    if method == "sequential":
        return sequential(decay, inputs, starts, initial, reverse=True)
    starts = None if starts is None else _flip(starts)
    return _flip(run(_flip_varying(decay), _flip(inputs), starts, initial))


_Residuals = tuple[Array, Array | None, Array, Array, Array]


def _scan_forward(
    method: str, reverse: bool, decay: Array, inputs: Array, starts: Array | None, initial: Array
) -> tuple[Array, _Residuals]:
    states = checkpoint_name(_scan(method, reverse, decay, inputs, starts, initial), STATES)
    return states, (decay, starts, states, initial, inputs[:0])


def _scan_backward(
    method: str, reverse: bool, residuals: _Residuals, cotangent: Array
) -> tuple[Array, Array, None, Array]:
    decay, starts, states, initial, like_inputs = residuals
    if not states.size:
        return (
            jnp.zeros_like(decay),
            jnp.zeros(states.shape, like_inputs.dtype),
            None,
            jnp.zeros_like(initial),
        )
    if reverse:
        decay, cotangent, states = _flip_varying(decay), _flip(cotangent), _flip(states)
        starts = None if starts is None else _flip(starts)
    adjoint_of = KERNEL_ADJOINTS.get(method)
    if adjoint_of is None:
        adjoint_of = partial(
            recurrence_adjoint if decay.ndim == 2 else varying_adjoint, partial(_scan, method, True)
        )
    gradient, adjoint, into_initial = adjoint_of(decay, cotangent, starts, states, initial)
    adjoint = adjoint.astype(like_inputs.dtype)
    if reverse:
        gradient, adjoint = _flip_varying(gradient), _flip(adjoint)
    return gradient, adjoint, None, into_initial


_scan.defvjp(_scan_forward, _scan_backward)


def _flip(x: Array) -> Array:
    return jnp.flip(x, axis=0)


def _flip_varying(decay: Array) -> Array:
    return decay if decay.ndim == 2 else _flip(decay)


def _floating(name: str, value: ArrayLike) -> Array:
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        raise TypeError(f"{name}: got dtype {array.dtype}, expected a real or complex floating dtype")
    return array


def _starts(value: ArrayLike | None, shape: tuple[int, ...]) -> Array | None:
    if value is None:
        return None
    starts = jnp.asarray(value)
    if starts.dtype != jnp.bool_:
        raise TypeError(f"episode_starts: got dtype {starts.dtype}, expected bool")
    if starts.shape != shape:
        raise ValueError(f"episode_starts: got shape {starts.shape}, expected {shape}")
    return starts
