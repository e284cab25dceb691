"""The resettable linear recurrence: the one loop in time that S5 needs.

A diagonal state space model's state is ``x_t = decay * x_{t-1} + input_t`` (Smith et al. 2023, arXiv
2208.04933, eq. 2), cut at episode boundaries (Lu et al. 2023, arXiv 2303.03982, section 4). Its adjoint is
the same recurrence run the other way, so one function serves the forward pass, the backward pass and, with a
real decay, generalised advantage estimation.
"""

from functools import partial
from typing import Final

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.typing import ArrayLike

from s5_adapters.core import planar
from s5_adapters.core.checks import nearest_names
from s5_adapters.core.scan_adjoint import pallas_adjoint, recurrence_adjoint
from s5_adapters.core.scan_methods import METHODS, sequential
from s5_adapters.core.scan_table import measured_method

AUTO: Final = "auto"
STATES: Final = "states"
"""What the states are called where something decides what a backward pass finds stored."""


def linear_recurrence(
    decay: ArrayLike,
    inputs: ArrayLike,
    episode_starts: ArrayLike | None = None,
    initial_state: ArrayLike | None = None,
    *,
    reverse: bool = False,
    method: str = AUTO,
) -> Array:
    """Solve ``x_t = decay * (1 - start_t) * x_{t-1} + input_t`` for all ``t``.

    Exact gradients for every floating argument, each in its argument's dtype, by one reversed recurrence that
    needs the states and nothing else. A reset selects, so that not even a NaN crosses it, forwards or in the
    gradient.

    Args:
        decay: ``(P,)`` real or complex, the same at every step.
        inputs: ``(T, *batch, P)`` real or complex. float32, complex64 or narrower; float64 and complex128
            under x64.
        episode_starts: ``(T, *batch)`` bool, True where the state is zeroed before that step's input is
            taken. None: nowhere.
        initial_state: ``(*batch, P)``, what the first step carries in. None: zeros.
        reverse: flip ``inputs`` and ``episode_starts`` in time, run forward and flip back. The state that
            arrives from ``t + 1`` is then dropped where ``episode_starts[t]``, so an advantage recurrence
            passes ``done``.
        method: ``"sequential"``, ``"associative"``, ``"chunked"``, ``"pallas"`` (a GPU kernel; float32), or
            ``"auto"``: whichever a benchmark on this platform (``benchmarks/scan.py --write-table``) found
            fastest nearest to this length and batch.

    Returns:
        The states ``(T, *batch, P)``: complex if any floating argument is, in the widest of the arguments'
        precisions and at least float32.

    Raises:
        TypeError: an argument's dtype is not what it should be.
        ValueError: an argument's shape does not fit, or the method is unknown.

    """
    decay, inputs = _floating("decay", decay), _floating("inputs", inputs)
    initial_state = None if initial_state is None else _floating("initial_state", initial_state)
    if decay.ndim != 1:
        raise ValueError(f"decay: got shape {decay.shape}, expected (P,)")
    if inputs.ndim < 2 or inputs.shape[-1] != decay.shape[0]:
        raise ValueError(f"inputs: got shape {inputs.shape}, expected (time, *batch, {decay.shape[0]})")
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
        components(decay, ()),
        components(inputs, (length, rows)),
        None if starts is None else starts.reshape(length, rows),
        components(first, (rows,)),
        reverse=reverse,
        method=method,
    )
    return (planar.to_complex(states) if is_complex else states[:, :, 0]).reshape(inputs.shape)


def resettable_scan(
    decay: Array,
    inputs: Array,
    starts: Array | None,
    initial: Array,
    *,
    reverse: bool = False,
    method: str = AUTO,
) -> Array:
    """Solve the recurrence in component form, unchecked: what the layers of this package call.

    Args:
        decay: ``(c, P)``, c = 1 for a real and 2 for a complex recurrence (see ``planar``).
        inputs: ``(T, B, c, P)``, of the other floating arguments' real dtype or a narrower one.
        starts: ``(T, B)`` bool, or None for no resets.
        initial: ``(B, c, P)``.
        reverse: as for ``linear_recurrence``.
        method: as for ``linear_recurrence``.

    Returns:
        The states ``(T, B, c, P)``.

    """
    is_wide = decay.dtype == jnp.float64
    if method == AUTO:
        method = measured_method(length=inputs.shape[0], batch=inputs.shape[1])
        if method == "pallas" and is_wide:
            method = "associative"
    if method == "pallas" and is_wide:
        raise TypeError(f"method 'pallas': got dtype {decay.dtype}, expected float32 or complex64")
    if method not in METHODS:
        raise ValueError(f"method: got {method!r}, expected one of {nearest_names(method, [AUTO, *METHODS])}")
    return _scan(method, reverse, decay, inputs, starts, initial)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scan(
    method: str, reverse: bool, decay: Array, inputs: Array, starts: Array | None, initial: Array
) -> Array:
    if method != "pallas":
        inputs = inputs.astype(initial.dtype)
    if not reverse:
        return METHODS[method](decay, inputs, starts, initial)
    if method == "sequential":
        return sequential(decay, inputs, starts, initial, reverse=True)
    starts = None if starts is None else _flip(starts)
    return _flip(METHODS[method](decay, _flip(inputs), starts, initial))


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
        cotangent, states = _flip(cotangent), _flip(states)
        starts = None if starts is None else _flip(starts)
    backwards = partial(_scan, method, True)
    adjoint_of = pallas_adjoint if method == "pallas" else partial(recurrence_adjoint, backwards)
    gradient, adjoint, into_initial = adjoint_of(decay, cotangent, starts, states, initial)
    adjoint = adjoint.astype(like_inputs.dtype)
    return gradient, _flip(adjoint) if reverse else adjoint, None, into_initial


_scan.defvjp(_scan_forward, _scan_backward)


def _flip(x: Array) -> Array:
    return jnp.flip(x, axis=0)


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
