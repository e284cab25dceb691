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
    """x_t = inputs_t + (0 where starts_t else decay_t * x_{t-1}), one step at a time, in double precision.

    The decay is one for all steps, (P,), or has the inputs' shape.
    """
    if reverse:
        flipped = decay if decay.ndim == 1 else decay[::-1]
        return recurrence(flipped, inputs[::-1], starts[::-1], initial)[::-1]
    decay, inputs, state = wide(every_step(decay, inputs)), wide(inputs), wide(initial)
    states = np.zeros(inputs.shape, np.result_type(decay, inputs, state))
    for t in range(len(inputs)):
        state = inputs[t] + np.where(starts[t][..., None], 0, decay[t] * state)
        states[t] = state
    return states


def every_step(decay: Array, inputs: Array) -> Array:
    """The decay of every step, whichever was given."""
    return np.broadcast_to(decay, inputs.shape)


def recurrence_gradients(
    decay: Array, inputs: Array, starts: Array, initial: Array, cotangent: Array, reverse: bool = False
) -> tuple[Array, Array, Array]:
    """Gradients of decay, inputs and initial state, in JAX's convention (transposed, never conjugated).

    Derived by hand: with s_t the sum of all that reaches x_t from the future,
    s_t = g_t + (0 where starts_{t+1} else decay_{t+1} * s_{t+1}), the input's gradient is s_t and decay_t's
    is x_{t-1} s_t at the steps that are no start; that of one decay for all steps is their sum. A real
    argument's gradient is the real part.
    """
    varies = decay.ndim > 1
    if reverse:
        flipped = decay[::-1] if varies else decay
        gradients = recurrence_gradients(flipped, inputs[::-1], starts[::-1], initial, cotangent[::-1])
        return gradients[0][::-1] if varies else gradients[0], gradients[1][::-1], gradients[2]
    states = recurrence(decay, inputs, starts, initial)
    previous = np.concatenate([wide(initial)[None], states[:-1]])
    multiplier, cotangent = wide(every_step(decay, inputs)), wide(cotangent)
    d_inputs, d_decay = np.zeros_like(states), np.zeros_like(states)
    carried = np.zeros(states.shape[1:], states.dtype)
    for t in reversed(range(len(states))):
        d_inputs[t] = cotangent[t] + carried
        kept = np.where(starts[t][..., None], 0, d_inputs[t])
        d_decay[t] = kept * np.where(starts[t][..., None], 0, previous[t])
        carried = multiplier[t] * kept
    if not varies:
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
