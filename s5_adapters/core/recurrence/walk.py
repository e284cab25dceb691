"""What the GPU kernels share: how time is cut, a step of the walk, resets as bits, the decay's gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import pallas as pl

from s5_adapters.core.recurrence import planar
from s5_adapters.core.shapes import Bool, Float, Int

Number = tuple[Array, ...]
"""One number for each lane: its real part, and its imaginary part if the recurrence is complex."""

SHORTEST_SEGMENT: Final = 64


@dataclass(frozen=True)
class Plan:
    """How a recurrence of ``(length, batch, parts, width)`` is cut: segments of blocks of steps."""

    length: int
    batch: int
    parts: int
    width: int
    reverse: bool
    steps: int
    """Steps of a block."""
    blocks: int
    """Blocks of a segment."""
    segments: int

    @classmethod
    def cut(
        cls,
        shape: tuple[int, ...],
        steps: int,
        segment: int | None,
        *,
        reverse: bool,
        lanes: int,
        enough: int,
        programs: int,
    ) -> Self:
        """Cut time into segments as they are given; or, unless there are enough programs of so many lanes,
        until there are ``programs``.
        """
        length, batch, parts, width = shape
        if segment is None:
            whole = pl.cdiv(batch * width, lanes)
            wanted = 1 if whole >= enough else programs // max(whole, 1)
            segment = max(SHORTEST_SEGMENT, pl.cdiv(length, wanted))
        segment = pl.next_power_of_2(min(segment, length))
        steps = min(steps, segment)
        return cls(length, batch, parts, width, reverse, steps, segment // steps, pl.cdiv(length, segment))

    @property
    def squarings(self) -> int:
        """How often the decay is squared for the decay over a segment."""
        return (self.steps * self.blocks).bit_length() - 1


def multiply_add(a: Number, x: Number, b: Number) -> Number:
    """Return ``a * x + b``, in as many fused operations as there are products."""
    if len(a) == 1:
        return (b[0] + a[0] * x[0],)
    return b[0] + a[0] * x[0] - a[1] * x[1], b[1] + a[0] * x[1] + a[1] * x[0]


def squared(a: Number, times: int) -> Number:
    """Return ``a ** (2 ** times)``: cheap within a kernel, where outside each square would be one."""
    for _ in range(times):
        a = (a[0] * a[0],) if len(a) == 1 else (a[0] * a[0] - a[1] * a[1], 2.0 * a[0] * a[1])
    return a


def unless(drop: Array, number: Number) -> Number:
    """Return the number, and 0 in the lanes that drop it."""
    return tuple(jnp.where(drop, 0.0, part) for part in number)


def is_set(word: Array, i: int) -> Array:
    """Tell whether bit i of an int32 word is set."""
    return jnp.asarray((word & np.uint32(1 << i).view(np.int32)) != 0)


def advance(factor: Number, drop: Array, input_t: Number, state: Number) -> Number:
    """Return the state after a step."""
    return multiply_add(factor, unless(drop, state), input_t)


def advance_adjoint(
    factor: Number,
    drop: Array,
    cotangent_t: Number,
    state: Number,
    carry: tuple[Number, Number, Number],
) -> tuple[Number, Number, Number]:
    """Return the adjoint after a step towards the past, and the two sums that make the decay's gradient."""
    later, same, crossed = carry
    kept, state = unless(drop, later), unless(drop, state)
    same = tuple(s + x * y for s, x, y in zip(same, state, kept, strict=True))
    crossed = tuple(s + x * y for s, x, y in zip(crossed, state, reversed(kept), strict=True))
    return multiply_add(factor, kept, cotangent_t), same, crossed


def reset_words(drops: Bool[Array, "T B"], steps: int, *, reverse: bool) -> Int[Array, "blocks B"]:
    """Return where the state is dropped, bit i for the i-th step of a block, in the order of the walk.

    It is dropped beyond the last step, where the adjoint must gather nothing.
    """
    length, batch = drops.shape
    padding = ((0, -length % steps), (0, 0))
    walked = jnp.pad(jnp.flip(drops, axis=0) if reverse else drops, padding, constant_values=True)
    bits = walked.reshape(-1, steps, batch).astype(jnp.int32)
    place = jnp.arange(steps, dtype=jnp.int32)[:, None]
    return jnp.sum(bits << place, axis=1, dtype=jnp.int32)


def segments_with_resets(words: Int[Array, "blocks ..."], blocks: int) -> Int[Array, "segments ..."]:
    """Return 1 for each segment of so many blocks into which a reset falls, 0 for the others."""
    padding = [(0, -words.shape[0] % blocks), *[(0, 0)] * (words.ndim - 1)]
    cut = jnp.pad(words != 0, padding).reshape(-1, blocks, *words.shape[1:])
    return cut.any(axis=1).astype(jnp.int32)


def complete_adjoint(
    towards_past: Float[Array, "c P"],
    starts: Bool[Array, "T B"] | None,
    initial: Float[Array, "B c P"],
    first: Float[Array, "B c P"],
    sums: Float[Array, "2 B c P"],
) -> tuple[Float[Array, "c P"], Float[Array, "B c P"]]:
    """Return the gradients of the decay and of the initial state.

    Args:
        towards_past: the conjugate decay.
        starts: where an episode begins.
        initial: the state before the first step.
        first: the adjoint at the first step.
        sums: over time, ``(B, c, P)`` each, of states times adjoint, part by part and crossed.

    """
    same, crossed = sums
    drop = None if starts is None else starts[0]
    kept, before = planar.select(drop, first), planar.select(drop, initial)
    gradient = planar.combine_conjugate_sums(
        jnp.sum(same + before * kept, axis=0), jnp.sum(crossed + before * kept[:, ::-1], axis=0)
    )
    return gradient, planar.multiply(towards_past, kept)
