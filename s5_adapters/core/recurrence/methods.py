"""Ways to compute the resettable recurrence ``x_t = decay * keep_t * x_{t-1} + input_t`` in component form.

Every method has one signature, ``method(decay, inputs, starts, initial) -> states``, with shapes ``decay (c,
P)``, ``inputs (T, B, c, P)``, ``starts (T, B)`` bool or None, ``initial (B, c, P)`` and ``states (T, B, c,
P)``; ``c`` is 1 for a real and 2 for a complex recurrence (see ``planar``). None of them builds an array of
decays over time: the decay is the same at every step, so its powers are enough. Those of ``VARYING_METHODS``
take a decay of every step, ``(T, B, c, P)``. No array is empty. Gradients, the reverse direction and empty
sequences are ``scan``'s business.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from s5_adapters.core.recurrence import planar
from s5_adapters.core.shapes import Bool, Float

Method = Callable[[Array, Array, Array | None, Array], Array]
Triple = tuple[Array, Array, Array]


def sequential(
    decay: Float[Array, "c P"] | Float[Array, "T B c P"],
    inputs: Float[Array, "T B c P"],
    starts: Bool[Array, "T B"] | None,
    initial: Float[Array, "B c P"],
    *,
    reverse: bool = False,
) -> Float[Array, "T B c P"]:
    """Take one step after another, ``decay (c, P)`` or ``(T, B, c, P)``: on a CPU as fast as a memory copy.

    Each state takes the place of its input, so the loop touches one array and not two. The product is
    selected and not the state: the other way round XLA's loop takes three times as long.
    """
    length = inputs.shape[0]

    def step(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        state, rows = carry
        t = length - 1 - index if reverse else index
        start_t = None if starts is None else lax.dynamic_index_in_dim(starts, t, keepdims=False)
        decay_t = decay if decay.ndim == 2 else lax.dynamic_index_in_dim(decay, t, keepdims=False)
        input_t = lax.dynamic_index_in_dim(rows, t, keepdims=False)
        state = input_t + planar.select(start_t, planar.multiply(decay_t, state))
        return state, lax.dynamic_update_index_in_dim(rows, state, t, axis=0)

    states: Array = lax.fori_loop(0, length, step, (initial, inputs))[1]
    return states


def following(starts: Bool[Array, "T B"]) -> Bool[Array, "T B"]:
    """Return whether the step after each one dropped its state; after the last there is nothing to keep."""
    return jnp.concatenate([starts[1:], jnp.ones_like(starts[:1])])


def associative(
    decay: Float[Array, "c P"],
    inputs: Float[Array, "T B c P"],
    starts: Bool[Array, "T B"] | None,
    initial: Float[Array, "B c P"],
) -> Float[Array, "T B c P"]:
    """Scan the inputs alone in parallel, work-efficient (Blelloch 1990), in ``2 log2 T`` parallel steps.

    The published three-element operator scans (decay, input, reset) triples, although all decays are equal;
    here a level of the recursion needs a single power ``decay**(2**level)`` and one bit per step, about a
    third of the memory traffic.
    """
    length = inputs.shape[0]
    first_drop = None if starts is None else starts[0]
    arrived = planar.select(first_drop, planar.multiply(decay, initial))
    inputs = jnp.concatenate([(inputs[0] + arrived)[None], inputs[1:]])
    powers = planar.squares(decay, max(1, (length - 1).bit_length()))
    return _odd_even(powers, inputs, starts)


def _odd_even(powers: list[Array], x: Array, starts: Array | None) -> Array:
    length = x.shape[0]
    if length == 1:
        return x
    decay, half = powers[0], length // 2
    even, odd = x[0::2], x[1::2]
    drop_even, drop_odd = (None, None) if starts is None else (starts[0::2], starts[1::2])
    pairs = odd + planar.select(drop_odd, planar.multiply(decay, even[:half]))
    pair_drops = None if drop_even is None or drop_odd is None else drop_odd | drop_even[:half]
    odd = _odd_even(powers[1:], pairs, pair_drops)
    later_drops = None if drop_even is None else drop_even[1:]
    later = even[1:] + planar.select(later_drops, planar.multiply(decay, odd[: even.shape[0] - 1]))
    even = jnp.concatenate([even[:1], later])
    joined = jnp.stack([even[:half], odd], axis=1).reshape((2 * half, *x.shape[1:]))
    return joined if length % 2 == 0 else jnp.concatenate([joined, even[half:]])


def chunked(
    decay: Float[Array, "c P"],
    inputs: Float[Array, "T B c P"],
    starts: Bool[Array, "T B"] | None,
    initial: Float[Array, "B c P"],
) -> Float[Array, "T B c P"]:
    """Cut time into chunks and step through all of them at once.

    One pass finds the state that each chunk would reach from zero, a short recurrence carries these across
    the chunks, and a second pass runs every chunk from its true first state. It does the sequential method's
    work twice in far fewer, larger steps, which pays where the batch is too small to fill the machine.
    """
    length, batch = inputs.shape[:2]
    size = _chunk_size(length, batch)
    count = -(-length // size)
    if count <= 1:
        return sequential(decay, inputs, starts, initial)
    if starts is None:
        starts = jnp.zeros((length, batch), bool)
    padding = count * size - length
    chunks = jnp.pad(inputs, ((0, padding), (0, 0), (0, 0), (0, 0))).reshape(count, size, *inputs.shape[1:])
    chunk_starts = jnp.pad(starts, ((0, padding), (0, 0))).reshape(count, size, batch)

    def advance(t: Array, state: Array) -> Array:
        input_t = lax.dynamic_index_in_dim(chunks, t, axis=1, keepdims=False)
        start_t = lax.dynamic_index_in_dim(chunk_starts, t, axis=1, keepdims=False)
        return jnp.add(input_t, planar.select(start_t, planar.multiply(decay, state)))

    from_zero = lax.fori_loop(0, size, advance, jnp.zeros_like(chunks[:, 0]))

    def across(carry: Array, chunk: tuple[Array, Array]) -> tuple[Array, Array]:
        reached, dropped = chunk
        return reached + planar.select(dropped, planar.multiply(chunk_decay, carry)), carry

    chunk_decay = planar.squares(decay, size.bit_length())[-1]
    firsts = lax.scan(across, initial, (from_zero, chunk_starts.any(axis=1)))[1]

    def record(t: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        state, states = carry
        state = advance(t, state)
        return state, lax.dynamic_update_index_in_dim(states, state, t, axis=1)

    states = lax.fori_loop(0, size, record, (firsts, jnp.zeros_like(chunks)))[1]
    states = jnp.reshape(states, (count * size, *inputs.shape[1:]))
    return states[:length]


_ROWS: Final = 256
"""Rows (chunks x batch) that one step of ``chunked`` aims at: enough to hide the cost of a loop iteration."""


def _chunk_size(length: int, batch: int) -> int:
    """Return a power of two of at least 16 steps, near the size at which one step covers ``_ROWS`` rows."""
    wanted = length * max(batch, 1) / _ROWS
    balanced = math.sqrt(max(length, 1))
    return 1 << max(4, math.ceil(math.log2(max(wanted, balanced, 1))))


def pallas(
    decay: Float[Array, "c P"],
    inputs: Float[Array, "T B c P"],
    starts: Bool[Array, "T B"] | None,
    initial: Float[Array, "B c P"],
) -> Float[Array, "T B c P"]:
    """Run one GPU kernel; elsewhere the same kernel interpreted, for tests (see ``pallas.py``)."""
    from s5_adapters.core.recurrence import pallas as kernels

    return kernels.pallas(decay, inputs, starts, initial)


def mosaic(
    decay: Float[Array, "c P"],
    inputs: Float[Array, "T B c P"],
    starts: Bool[Array, "T B"] | None,
    initial: Float[Array, "B c P"],
) -> Float[Array, "T B c P"]:
    """Run one kernel for GPUs since Hopper (see ``mosaic.py``); on other platforms the associative scan."""
    from s5_adapters.core.recurrence import mosaic as kernels

    def elsewhere(decay: Array, inputs: Array, starts: Array | None, initial: Array) -> Array:
        return associative(decay, inputs.astype(initial.dtype), starts, initial)

    states: Array = lax.platform_dependent(
        decay, inputs, starts, initial, cuda=kernels.mosaic, default=elsewhere
    )
    return states


def associative_triples(
    decay: Float[Array, "T B c P"],
    inputs: Float[Array, "T B c P"],
    starts: Bool[Array, "T B"] | None,
    initial: Float[Array, "B c P"],
) -> Float[Array, "T B c P"]:
    """Scan (decay, input, reset) triples in parallel, ``decay (T, B, c, P)``.

    A triple stands for a run of steps: the product of its decays, the state that it reaches from zero,
    whether a reset lies in it. What arrives at a reset is selected away, the product with it. A product that
    overflows saturates, so that one which multiplies an exact zero still gives zero.
    """
    if starts is None:
        starts = jnp.zeros(inputs.shape[:2], bool)
    limit = float(np.finfo(decay.dtype).max)
    arrived = planar.select(starts[0], planar.multiply(decay[0], initial))
    inputs = jnp.concatenate([(inputs[0] + arrived)[None], inputs[1:]])

    def combine(earlier: Triple, later: Triple) -> Triple:
        decay, state, is_cut = later
        product = jnp.clip(planar.multiply(decay, earlier[0]), -limit, limit)
        return product, state + planar.select(is_cut, planar.multiply(decay, earlier[1])), is_cut | earlier[2]

    states: Array = lax.associative_scan(combine, (decay, inputs, starts))[1]
    return states


METHODS: Final[dict[str, Method]] = {
    "sequential": sequential,
    "associative": associative,
    "chunked": chunked,
    "pallas": pallas,
    "mosaic": mosaic,
}
"""Every method by its name."""
VARYING_METHODS: Final[dict[str, Method]] = {"sequential": sequential, "associative": associative_triples}
"""Those for a decay of every step."""
