"""The resettable recurrence as a GPU kernel: one pass over memory, forwards and in the adjoint.

Every lane of every sequence is independent, so a lane belongs to one thread, which walks through time with
its state in registers: each input is read once and each state written once. What limits such a walk is how
many loads are under way, so the next ``steps`` loads are always issued before the current ones are used.

Where lanes are too few to fill the GPU, time is cut into segments that are walked side by side: a first
kernel finds the state that each segment would reach from zero, and the second begins every segment from its
true first state, which it gathers from those. Inputs are then read twice, in a fraction of the time.

The state, the decay and its gradient are float32; inputs and cotangents may be bfloat16. Written in Pallas
for Triton (CUDA, compute capability 8.0 or newer). On any other platform the same kernels run in Pallas'
interpreter: right, and far too slow for anything but tests.
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

from s5_adapters.core.recurrence import planar
from s5_adapters.core.recurrence.methods import following
from s5_adapters.core.shapes import Bool, Float

LANES: Final = 32
"""Lanes of a program: one warp, so that many programs share a processor."""
FORWARD_STEPS: Final = 32
ADJOINT_STEPS: Final = 16
"""Steps whose loads are under way together; the adjoint reads two arrays, hence half."""

PROGRAMS: Final = 256
"""Time is cut until there are so many programs: two for each processor of an H200. Not tuned on a GPU."""
SHORTEST_SEGMENT: Final = 64

Number = tuple[Array, ...]
"""One number for each lane: its real part, and its imaginary part if the recurrence is complex."""


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
        steps: how many steps' loads are under way together.
        segment: steps of a segment, a power of two; None: what fills a GPU.

    """
    length, batch, _, _ = inputs.shape
    if not inputs.size:
        return jnp.zeros(inputs.shape, initial.dtype)
    plan = _plan(inputs.shape, steps, segment, reverse=False)
    rows, drops = inputs.reshape(length, -1), _bytes(starts, length, batch)
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
    if not states.size:
        return jnp.zeros_like(decay), cotangent, jnp.zeros_like(initial)
    plan = _plan(states.shape, steps, segment, reverse=True)
    towards_past = planar.conjugate(decay)
    drops = _bytes(None if starts is None else following(starts), length, batch)
    if starts is None:
        drops = drops.at[-1].set(1)
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
    same, crossed = jnp.sum(sums, axis=0).reshape(2, *initial.shape)
    first = None if starts is None else starts[0]
    kept = planar.select(first, adjoint[0].astype(initial.dtype))
    before = planar.select(first, initial)
    total = planar.combine_conjugate_sums(
        jnp.sum(same + before * kept, axis=0), jnp.sum(crossed + before * kept[:, ::-1], axis=0)
    )
    return total, adjoint, planar.multiply(towards_past, kept)


@dataclass(frozen=True)
class _Plan:
    """How a recurrence of ``(length, batch, parts, width)`` is spread over programs."""

    length: int
    batch: int
    parts: int
    width: int
    reverse: bool
    segment: int
    segments: int
    steps: int

    def time(self, i: Any) -> Any:
        """Return the row that is walked as the i-th."""
        return self.length - 1 - i if self.reverse else i


def _plan(shape: tuple[int, ...], steps: int, segment: int | None, *, reverse: bool) -> _Plan:
    length, batch, parts, width = shape
    if segment is None:
        wanted = max(1, PROGRAMS // pl.cdiv(batch * width, LANES))
        segment = max(SHORTEST_SEGMENT, pl.next_power_of_2(pl.cdiv(length, wanted)))
    segments = pl.cdiv(length, segment)
    return _Plan(length, batch, parts, width, reverse, segment, segments, min(steps, length, segment))


def _arriving(
    plan: _Plan, decay: Array, rows: Array, drops: Array, initial: Array
) -> tuple[Array, Array, Array, Array]:
    """Return what tells a segment its first state: ``decay ** segment``, the state that each segment reaches
    from zero, whether a reset falls into it, and the state before all of them.
    """
    if plan.segments == 1:
        return decay, jnp.zeros((1, initial.size)), jnp.zeros((1, plan.batch), jnp.int8), initial.reshape(-1)
    (ends,) = _call(
        partial(_ends_kernel, plan=plan),
        (decay, rows, drops),
        [jax.ShapeDtypeStruct((plan.segments, initial.size), initial.dtype)],
        plan,
        "resettable_scan_ends",
    )
    in_order = jnp.flip(drops, axis=0) if plan.reverse else drops
    padded = jnp.pad(in_order, ((0, plan.segments * plan.segment - plan.length), (0, 0)))
    dropped = jnp.max(padded.reshape(plan.segments, plan.segment, plan.batch), axis=1)
    power = planar.squares(decay, plan.segment.bit_length())[-1]
    return power, ends, dropped, initial.reshape(-1)


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


def _bytes(starts: Array | None, length: int, batch: int) -> Array:
    return jnp.zeros((length, batch), jnp.int8) if starts is None else starts.astype(jnp.int8)


class _Lanes:
    """The places of one program's lanes in arrays whose rows are ``(batch, parts, width)``."""

    def __init__(self, plan: _Plan) -> None:
        lane = pl.program_id(0) * LANES + jnp.arange(LANES)
        self.inside = lane < plan.batch * plan.width
        self.sequence = lane // plan.width
        self.within = lane % plan.width
        self.elements = [
            (self.sequence * plan.parts + part) * plan.width + self.within for part in range(plan.parts)
        ]

    def read(self, ref: Any, row: Any = None) -> Number:
        """Read one number a lane, as float32, from a row of ``ref`` or from ``ref`` itself."""
        at = [offsets if row is None else (row, offsets) for offsets in self.elements]
        return tuple(
            triton.load(ref.at[index], mask=self.inside, other=0.0).astype(jnp.float32) for index in at
        )

    def read_weight(self, ref: Any) -> Number:
        """Read the number that all sequences share, from ``ref (parts, width)``."""
        return tuple(
            triton.load(ref.at[part, self.within], mask=self.inside, other=0.0)
            for part in range(len(self.elements))
        )

    def zero(self) -> Number:
        """Return the number 0 in every lane."""
        return tuple(jnp.zeros(LANES, jnp.float32) for _ in self.elements)

    def read_flag(self, ref: Any, row: Any) -> Array:
        """Tell whether the lanes' sequences drop their state at that row."""
        return jnp.asarray(triton.load(ref.at[row, self.sequence], mask=self.inside, other=0) != 0)

    def write(self, ref: Any, number: Number, row: Any) -> None:
        """Write one number a lane into a row of ``ref``."""
        for offsets, part in zip(self.elements, number, strict=True):
            triton.store(ref.at[row, offsets], part.astype(ref.dtype), mask=self.inside)


def _walk(plan: _Plan, load: Any, advance: Any, state: Any) -> Any:
    """Call ``advance(t, load(t), state)`` for every row t of this program's segment in turn, the next
    ``plan.steps`` loads always under way.
    """
    begin = pl.program_id(1) * plan.segment
    end = jnp.minimum(begin + plan.segment, plan.length)
    count = (end - begin) // plan.steps

    def load_all(block: Any) -> list[Any]:
        # A segment shorter than one block has none to run; what is then loaded ahead must exist all the same.
        first = jnp.minimum(begin + block * plan.steps, plan.length - plan.steps)
        return [load(plan.time(first + i)) for i in range(plan.steps)]

    def run_block(block: Any, carry: Any) -> Any:
        state, loaded = carry
        coming = load_all(jnp.minimum(block + 1, count - 1))
        for i in range(plan.steps):
            state = advance(plan.time(begin + block * plan.steps + i), loaded[i], state)
        return state, coming

    def run_step(i: Any, state: Any) -> Any:
        return advance(plan.time(i), load(plan.time(i)), state)

    state, _ = lax.fori_loop(0, count, run_block, (state, load_all(0)))
    return lax.fori_loop(begin + count * plan.steps, end, run_step, state)


def _arrive(lanes: _Lanes, power: Any, ends: Any, dropped: Any, initial: Any) -> Number:
    """Return the state that this program's segment begins with, from what the segments before it reached."""
    factor = lanes.read_weight(power)

    def cross(k: Any, state: Number) -> Number:
        kept = _unless(lanes.read_flag(dropped, k), state)
        return _plus(lanes.read(ends, k), _times(factor, kept))

    state: Number = lax.fori_loop(0, pl.program_id(1), cross, lanes.read(initial))
    return state


def _times(a: Number, b: Number) -> Number:
    if len(a) == 1:
        return (a[0] * b[0],)
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def _plus(a: Number, b: Number) -> Number:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _unless(drop: Array, a: Number) -> Number:
    return tuple(jnp.where(drop, 0.0, x) for x in a)


def _ends_kernel(decay: Any, inputs: Any, drops: Any, ends: Any, *, plan: _Plan) -> None:
    lanes = _Lanes(plan)
    factor = lanes.read_weight(decay)

    def load(t: Any) -> tuple[Number, Array]:
        return lanes.read(inputs, t), lanes.read_flag(drops, t)

    def advance(_: Any, loaded: tuple[Number, Array], state: Number) -> Number:
        return _plus(loaded[0], _times(factor, _unless(loaded[1], state)))

    lanes.write(ends, _walk(plan, load, advance, lanes.zero()), pl.program_id(1))


def _forward_kernel(
    decay: Any,
    inputs: Any,
    drops: Any,
    power: Any,
    ends: Any,
    dropped: Any,
    initial: Any,
    states: Any,
    *,
    plan: _Plan,
) -> None:
    lanes = _Lanes(plan)
    factor = lanes.read_weight(decay)

    def load(t: Any) -> tuple[Number, Array]:
        return lanes.read(inputs, t), lanes.read_flag(drops, t)

    def advance(t: Any, loaded: tuple[Number, Array], state: Number) -> Number:
        state = _plus(loaded[0], _times(factor, _unless(loaded[1], state)))
        lanes.write(states, state, t)
        return state

    _walk(plan, load, advance, _arrive(lanes, power, ends, dropped, initial))


def _adjoint_kernel(
    decay: Any,
    cotangent: Any,
    drops: Any,
    power: Any,
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

    def load(t: Any) -> tuple[Number, Number, Array]:
        return lanes.read(cotangent, t), lanes.read(states, t), lanes.read_flag(drops, t)

    def advance(t: Any, loaded: tuple[Number, Number, Array], carry: Any) -> Any:
        cotangent_t, state, drop = loaded
        later, same, crossed = carry
        kept, state = _unless(drop, later), _unless(drop, state)
        same = tuple(s + x * y for s, x, y in zip(same, state, kept, strict=True))
        crossed = tuple(s + x * y for s, x, y in zip(crossed, state, reversed(kept), strict=True))
        reached = _plus(cotangent_t, _times(factor, kept))
        lanes.write(adjoint, reached, t)
        return reached, same, crossed

    later = _arrive(lanes, power, ends, dropped, initial)
    _, same, crossed = _walk(plan, load, advance, (later, lanes.zero(), lanes.zero()))
    half = sums.shape[1] // 2
    for offsets, total, cross in zip(lanes.elements, same, crossed, strict=True):
        triton.store(sums.at[pl.program_id(1), offsets], total, mask=lanes.inside)
        triton.store(sums.at[pl.program_id(1), half + offsets], cross, mask=lanes.inside)
