"""The recurrence and its adjoint as plain float64 numpy loops: what every scan method is measured against."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.generic]


def wide(array: ArrayLike) -> Array:
    """The same numbers in double precision, real or complex as they came."""
    array = np.asarray(array)
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)


def recurrence(decay: Array, inputs: Array, starts: Array, initial: Array, reverse: bool = False) -> Array:
    """x_t = inputs_t + (0 where starts_t else decay * x_{t-1}), one step at a time, in double precision."""
    if reverse:
        return recurrence(decay, inputs[::-1], starts[::-1], initial)[::-1]
    decay, inputs, state = wide(decay), wide(inputs), wide(initial)
    states = np.zeros(inputs.shape, np.result_type(decay, inputs, state))
    for t in range(len(inputs)):
        state = inputs[t] + np.where(starts[t][..., None], 0, decay * state)
        states[t] = state
    return states


def recurrence_gradients(
    decay: Array, inputs: Array, starts: Array, initial: Array, cotangent: Array, reverse: bool = False
) -> tuple[Array, Array, Array]:
    """Gradients of decay, inputs and initial state, in JAX's convention (transposed, never conjugated).

    Derived by hand: with s_t the sum of all that reaches x_t from the future,
    s_t = g_t + (0 where starts_{t+1} else decay * s_{t+1}), the input's gradient is s_t and the decay's is
    the sum of x_{t-1} s_t over the steps that are no start. A real argument's gradient is the real part.
    """
    if reverse:
        flipped = recurrence_gradients(decay, inputs[::-1], starts[::-1], initial, cotangent[::-1])
        return flipped[0], flipped[1][::-1], flipped[2]
    states = recurrence(decay, inputs, starts, initial)
    previous = np.concatenate([wide(initial)[None], states[:-1]])
    multiplier, cotangent = wide(decay), wide(cotangent)
    d_inputs = np.zeros_like(states)
    d_decay = np.zeros(states.shape[1:], states.dtype)
    carried = np.zeros_like(d_decay)
    for t in reversed(range(len(states))):
        d_inputs[t] = cotangent[t] + carried
        kept = np.where(starts[t][..., None], 0, d_inputs[t])
        d_decay += kept * np.where(starts[t][..., None], 0, previous[t])
        carried = multiplier * kept
    d_decay = d_decay.reshape(-1, d_decay.shape[-1]).sum(axis=0)
    gradients = ((d_decay, decay), (d_inputs, inputs), (carried, initial))
    return tuple(g if np.iscomplexobj(argument) else g.real for g, argument in gradients)


def relative_error(actual: ArrayLike, expected: ArrayLike) -> float:
    """Norm of the difference over the norm of the expected; where zero is expected, only exact zero does."""
    actual, expected = wide(actual), wide(expected)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    scale = np.linalg.norm(expected)
    error = np.linalg.norm(actual - expected)
    return float(error / scale) if scale > 0 else (0.0 if error == 0 else np.inf)
