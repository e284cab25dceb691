"""The resettable recurrence as a GPU kernel: one pass over memory, forwards and in the adjoint.

Every lane of every sequence is independent, so a lane belongs to one thread, which walks through time with
its state in registers: each input is read once and each state written once. What limits such a walk is how
many loads are under way, so the loads of the next block of steps are always issued before the current block
is used. The resets of a block are the bits of one word: a load a block and a register, not one a step.

Where lanes are too few to fill the GPU, time is cut into segments that are walked side by side: a first
kernel finds the state that each segment would reach from zero, and the second begins every segment from its
true first state, which it gathers from those. Inputs are then read twice, in a fraction of the time.

The state, the decay and its gradient are float32; inputs and cotangents may be bfloat16. Written in Pallas
for Triton (CUDA, compute capability 8.0 or newer). On any other platform the same kernels run in Pallas'
interpreter: right, and far too slow for anything but tests. ``docs/performance.md`` has the reasons for the
numbers below, ``benchmarks/NOTES.md`` what the compiler makes of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from s5_adapters.core.recurrence import planar, walk
from s5_adapters.core.recurrence.methods import following
from s5_adapters.core.recurrence.walk import Number
from s5_adapters.core.shapes import Bool, Float

LANES: Final = 32
"""Lanes of a program: one warp, so that many programs share a processor."""
FORWARD_STEPS: Final = 32
ADJOINT_STEPS: Final = 16
"""Steps of a block, at most the bits of a word; the adjoint reads two arrays, hence half."""

ENOUGH: Final = 96
"""Programs, each with 8 KiB under way, from which on a cut, which reads the inputs twice, does not pay."""
PROGRAMS: Final = 256
"""With fewer, time is cut until there are so many: two for each processor."""
LARGEST_ROW: Final = 2**30
"""Numbers of one step, so that an offset within it, and the two sums of each, fit 32 bits."""


def pallas(
    decay: Float[Array, "c P"],
    inputs: Float[Array, "T B c P"],
    starts: Bool[Array, "T B"] | None,
    initial: Float[Array, "B c P"],
    *,
    steps: int = FORWARD_STEPS,
    segment: int | None = None,
) -> Float[Array, "T B c P"]:
    """Solve the recurrence; arguments and result as for every method, see ``methods``.

    Args:
        decay: ``(c, P)`` float32.
        inputs: ``(T, B, c, P)`` float32 or bfloat16.
        starts: ``(T, B)`` bool, or None.
        initial: ``(B, c, P)`` float32.
        steps: steps of a block, a power of two up to 32; those of the next are being loaded meanwhile.
        segment: steps of a segment, a power of two; None: what fills a GPU.

    """
    length, batch, _, _ = inputs.shape
    plan = _plan(inputs.shape, steps, segment, reverse=False)
    if starts is None:
        starts = jnp.zeros((length, batch), bool)
    rows, drops = inputs.reshape(length, -1), walk.reset_words(starts, plan.steps, reverse=False)
    arriving = _arriving(plan, decay, rows, drops, initial)
    (states,) = _call(
        partial(_forward_kernel, plan=plan),
        (decay, rows, drops, *arriving),
        [jax.ShapeDtypeStruct(rows.shape, initial.dtype)],
        plan,
        "resettable_scan",
    )
    return states.reshape(inputs.shape)


def pallas_adjoint(
    decay: Float[Array, "c P"],
    cotangent: Float[Array, "T B c P"],
    starts: Bool[Array, "T B"] | None,
    states: Float[Array, "T B c P"],
    initial: Float[Array, "B c P"],
    *,
    steps: int = ADJOINT_STEPS,
    segment: int | None = None,
) -> tuple[Float[Array, "c P"], Float[Array, "T B c P"], Float[Array, "B c P"]]:
    """Run the adjoint and gather the decay's gradient in one pass; see ``adjoint`` and ``pallas``."""
    length, batch, _, _ = states.shape
    plan = _plan(states.shape, steps, segment, reverse=True)
    towards_past = planar.conjugate(decay)
    following_starts = following(jnp.zeros((length, batch), bool) if starts is None else starts)
    drops = walk.reset_words(following_starts, plan.steps, reverse=True)
    rows = cotangent.reshape(length, -1)
    arriving = _arriving(plan, towards_past, rows, drops, jnp.zeros_like(initial))
    adjoint, sums = _call(
        partial(_adjoint_kernel, plan=plan),
        (towards_past, rows, drops, *arriving, states.reshape(length, -1)),
        [
            jax.ShapeDtypeStruct(rows.shape, cotangent.dtype),
            jax.ShapeDtypeStruct((plan.segments, 2 * initial.size), initial.dtype),
        ],
        plan,
        "resettable_scan_adjoint",
    )
    adjoint = adjoint.reshape(states.shape)
    totals = jnp.sum(sums, axis=0).reshape(2, *initial.shape)
    first = adjoint[0].astype(initial.dtype)
    gradient, into_initial = walk.complete_adjoint(towards_past, starts, initial, first, totals)
    return gradient, adjoint, into_initial


@dataclass(frozen=True)
class _Plan(walk.Plan):
    """How a recurrence is spread over programs."""

    @property
    def is_ragged(self) -> bool:
        """Whether the last block goes on beyond the last step."""
        return self.length % self.steps != 0

    @property
    def is_full(self) -> bool:
        """Whether every program has a number for each of its lanes."""
        return self.batch * self.width % LANES == 0

    def row(self, block: Any, i: int) -> Any:
        """Return the row that is walked as the i-th of a block, the last one for all beyond it."""
        if not self.reverse:
            row = block * self.steps + i
            return jnp.minimum(row, self.length - 1) if self.is_ragged else row
        last = pl.cdiv(self.length, self.steps) - 1
        row = _within(last, last - block) * self.steps + (self.steps - 1 - i)
        return jnp.maximum(row - (-self.length % self.steps), 0) if self.is_ragged else row


def _within(largest: int, number: Any) -> Any:
    """Return a number from 0 to ``largest`` with its upper bits cut off, which are zero anyway.

    The compiler then knows that offsets do not overflow, and puts the constants in them into instructions.
    """
    return number & (pl.next_power_of_2(largest + 1) - 1)


def _plan(shape: tuple[int, ...], steps: int, segment: int | None, *, reverse: bool) -> _Plan:
    _, batch, parts, width = shape
    if batch * parts * width > LARGEST_ROW:
        raise ValueError(
            f"inputs: got {batch * parts * width} numbers a step, expected at most {LARGEST_ROW}"
        )
    return _Plan.cut(shape, steps, segment, reverse=reverse, lanes=LANES, enough=ENOUGH, programs=PROGRAMS)


def _arriving(
    plan: _Plan, decay: Array, rows: Array, drops: Array, initial: Array
) -> tuple[Array, Array, Array]:
    """Return what tells a segment its first state: the state that each segment reaches from zero, whether a
    reset falls into it, and the state before all of them.
    """
    if plan.segments == 1:
        return jnp.zeros((1, initial.size)), jnp.zeros((1, plan.batch), jnp.int32), initial.reshape(-1)
    (ends,) = _call(
        partial(_ends_kernel, plan=plan),
        (decay, rows, drops),
        [jax.ShapeDtypeStruct((plan.segments, initial.size), initial.dtype)],
        plan,
        "resettable_scan_ends",
    )
    dropped = walk.segments_with_resets(drops, plan.blocks)
    return ends, dropped, initial.reshape(-1)


def _call(
    kernel: Callable[..., None], arguments: tuple[Array, ...], shapes: list[Any], plan: _Plan, name: str
) -> list[Array]:
    def run(*arguments: Array, interpret: bool) -> list[Array]:
        call = pl.pallas_call(
            kernel,
            out_shape=shapes,
            grid=(pl.cdiv(plan.batch * plan.width, LANES), plan.segments),
            interpret=interpret,
            name=name,
            compiler_params=None if interpret else triton.CompilerParams(num_warps=1, num_stages=1),
        )
        result: list[Array] = call(*arguments)
        return result

    result: list[Array] = lax.platform_dependent(
        *arguments, cuda=partial(run, interpret=False), default=partial(run, interpret=True)
    )
    return result


class _Lanes:
    """The places of one program's lanes in arrays whose rows are ``(batch, parts, width)``."""

    def __init__(self, plan: _Plan) -> None:
        lane = _within(plan.batch * plan.width + LANES - 1, pl.program_id(0) * LANES + jnp.arange(LANES))
        self.inside = None if plan.is_full else lane < plan.batch * plan.width
        self.sequence = lane // plan.width
        self.within = lane % plan.width
        self.elements = [
            (self.sequence * plan.parts + part) * plan.width + self.within for part in range(plan.parts)
        ]

    def read(self, ref: Any, row: Any = None) -> Number:
        """Read one number a lane, as float32, from a row of ``ref`` or from ``ref`` itself."""
        at = [offsets if row is None else (row, offsets) for offsets in self.elements]
        return tuple(self._load(ref, index, 0.0).astype(jnp.float32) for index in at)

    def read_weight(self, ref: Any) -> Number:
        """Read the number that all sequences share, from ``ref (parts, width)``."""
        return tuple(self._load(ref, (part, self.within), 0.0) for part in range(len(self.elements)))

    def read_word(self, ref: Any, row: Any) -> Array:
        """Read what a row of ``ref (rows, batch)`` has for the lanes' sequences."""
        return self._load(ref, (row, self.sequence), 0)

    def zero(self) -> Number:
        """Return the number 0 in every lane."""
        return tuple(jnp.zeros(LANES, jnp.float32) for _ in self.elements)

    def write(self, ref: Any, number: Number, row: Any, exists: Any = None) -> None:
        """Write one number a lane into a row of ``ref``, if that ``exists``."""
        mask = self.inside
        if exists is not None:
            mask = jnp.broadcast_to(exists, (LANES,)) if mask is None else mask & exists
        for offsets, part in zip(self.elements, number, strict=True):
            triton.store(ref.at[row, offsets], part.astype(ref.dtype), mask=mask)

    def _load(self, ref: Any, index: Any, other: float) -> Array:
        at = ref.at[index]
        result: Array = (
            triton.load(at) if self.inside is None else triton.load(at, mask=self.inside, other=other)
        )
        return result


def _walk(plan: _Plan, load: Any, read_word: Any, advance: Any, state: Any) -> Any:
    """Call ``advance(row, exists, drop, load(row), state)`` for every step of this program's segment in turn,
    while later steps are being loaded; ``exists`` is None where no step lies beyond the last one.
    """
    begin = pl.program_id(1) * plan.blocks
    count = jnp.minimum(plan.blocks, pl.cdiv(plan.length, plan.steps) - begin)

    def load_block(block: Any) -> tuple[Any, list[Any]]:
        return read_word(begin + block), [load(plan.row(begin + block, i)) for i in range(plan.steps)]

    def run_block(block: Any, carry: Any) -> Any:
        state, (word, loaded) = carry
        coming = load_block(jnp.minimum(block + 1, count - 1))
        for i, number in enumerate(loaded):
            exists = (begin + block) * plan.steps + i < plan.length if plan.is_ragged else None
            state = advance(plan.row(begin + block, i), exists, walk.is_set(word, i), number, state)
        return state, coming

    return lax.fori_loop(0, count, run_block, (state, load_block(0)))[0]


def _arrive(plan: _Plan, lanes: _Lanes, factor: Number, ends: Any, dropped: Any, initial: Any) -> Number:
    """Return the state that this program's segment begins with, from what the segments before it reached."""
    if plan.segments == 1:
        return lanes.read(initial)
    factor = walk.squared(factor, plan.squarings)

    def cross(k: Any, state: Number) -> Number:
        return walk.advance(factor, lanes.read_word(dropped, k) != 0, lanes.read(ends, k), state)

    state: Number = lax.fori_loop(0, pl.program_id(1), cross, lanes.read(initial))
    return state


def _ends_kernel(decay: Any, inputs: Any, drops: Any, ends: Any, *, plan: _Plan) -> None:
    lanes = _Lanes(plan)
    factor = lanes.read_weight(decay)

    def advance(_: Any, exists: Any, drop: Array, input_t: Number, state: Number) -> Number:
        return walk.advance(factor, drop, input_t, state)

    state = _walk(plan, partial(lanes.read, inputs), partial(lanes.read_word, drops), advance, lanes.zero())
    lanes.write(ends, state, pl.program_id(1))


def _forward_kernel(
    decay: Any,
    inputs: Any,
    drops: Any,
    ends: Any,
    dropped: Any,
    initial: Any,
    states: Any,
    *,
    plan: _Plan,
) -> None:
    lanes = _Lanes(plan)
    factor = lanes.read_weight(decay)

    def advance(row: Any, exists: Any, drop: Array, input_t: Number, state: Number) -> Number:
        state = walk.advance(factor, drop, input_t, state)
        lanes.write(states, state, row, exists)
        return state

    first = _arrive(plan, lanes, factor, ends, dropped, initial)
    _walk(plan, partial(lanes.read, inputs), partial(lanes.read_word, drops), advance, first)


def _adjoint_kernel(
    decay: Any,
    cotangent: Any,
    drops: Any,
    ends: Any,
    dropped: Any,
    initial: Any,
    states: Any,
    adjoint: Any,
    sums: Any,
    *,
    plan: _Plan,
) -> None:
    lanes = _Lanes(plan)
    factor = lanes.read_weight(decay)

    def load(row: Any) -> tuple[Number, Number]:
        return lanes.read(cotangent, row), lanes.read(states, row)

    def advance(row: Any, exists: Any, drop: Array, loaded: tuple[Number, Number], carry: Any) -> Any:
        carry = walk.advance_adjoint(factor, drop, *loaded, carry)
        lanes.write(adjoint, carry[0], row, exists)
        return carry

    first = _arrive(plan, lanes, factor, ends, dropped, initial), lanes.zero(), lanes.zero()
    _, same, crossed = _walk(plan, load, partial(lanes.read_word, drops), advance, first)
    half = sums.shape[1] // 2
    for offsets, total, cross in zip(lanes.elements, same, crossed, strict=True):
        triton.store(sums.at[pl.program_id(1), offsets], total, mask=lanes.inside)
        triton.store(sums.at[pl.program_id(1), half + offsets], cross, mask=lanes.inside)
