"""The recurrence and its adjoint as Mosaic GPU kernels, for Hopper and newer; they outlive Pallas for Triton.

The walk is that of ``pallas.py``, but what is under way waits in shared memory and not in registers. A
program has 128 lanes, the threads of a warpgroup, and a ring of stages, each a block of steps. The memory
unit copies whole blocks in and out by itself, so that several are under way at any moment.

Blocks are cut out of arrays ``(T, groups, c, lanes)`` whose lanes are a multiple of 128. Where the width is
such a multiple, groups are sequences and that is how the arrays lie. Otherwise all numbers of a step become
the lanes of one group, which costs a transposed copy each way.

Tested in Pallas' interpreter for GPUs and compiled, with JAX 0.10 and 0.12, and measured on an H200. Callers
take another method where the platform is not CUDA.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from s5_adapters.core.recurrence import planar, walk
from s5_adapters.core.recurrence.methods import following
from s5_adapters.core.recurrence.walk import Number
from s5_adapters.core.shapes import Bool, Float

LANES: Final = 128
"""Lanes of a program: a warpgroup, the smallest that Mosaic GPU knows."""
FORWARD_STEPS: Final = 32
ADJOINT_STEPS: Final = 16
"""Steps of a block, at most the bits of a word: 32 KiB either way, of a complex recurrence."""
STAGES: Final = 4
"""Blocks in shared memory on their way in; two more are on their way out."""
ENOUGH: Final = 32
"""Programs that keep the memory busy; from here on a cut, which reads the inputs twice, does not pay."""
PROGRAMS: Final = 128
"""With fewer, time is cut until there are so many: one for each processor."""


def mosaic(
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
        steps: steps of a block, a power of two up to 32.
        segment: steps of a segment, a power of two; None: what fills a GPU.

    """
    length, batch, _, _ = inputs.shape
    plan = _plan(inputs.shape, steps, segment, reverse=False)
    drops = jnp.zeros((length, batch), bool) if starts is None else starts
    blocks = _Blocks(plan, decay, drops, [plan.blocked(inputs)], plan.rows(initial))
    shape = jax.ShapeDtypeStruct(plan.shape, initial.dtype)
    (states,) = blocks.run(_forward_kernel, [shape], "resettable_scan", outputs=1)
    return plan.unblocked(states)


def mosaic_adjoint(
    decay: Float[Array, "c P"],
    cotangent: Float[Array, "T B c P"],
    starts: Bool[Array, "T B"] | None,
    states: Float[Array, "T B c P"],
    initial: Float[Array, "B c P"],
    *,
    steps: int = ADJOINT_STEPS,
    segment: int | None = None,
) -> tuple[Float[Array, "c P"], Float[Array, "T B c P"], Float[Array, "B c P"]]:
    """Run the adjoint and gather the decay's gradient in one pass; see ``adjoint`` and ``mosaic``."""
    length, batch, _, _ = states.shape
    plan = _plan(states.shape, steps, segment, reverse=True)
    towards_past = planar.conjugate(decay)
    drops = following(jnp.zeros((length, batch), bool) if starts is None else starts)
    arrays = [plan.blocked(cotangent), plan.blocked(states)]
    blocks = _Blocks(plan, towards_past, drops, arrays, jnp.zeros_like(plan.rows(initial)))
    shapes = [
        jax.ShapeDtypeStruct(plan.shape, cotangent.dtype),
        jax.ShapeDtypeStruct((2, plan.segments, *plan.shape[1:]), initial.dtype),
    ]
    adjoint, sums = blocks.run(_adjoint_kernel, shapes, "resettable_scan_adjoint", outputs=1)
    adjoint = plan.unblocked(adjoint)
    totals = plan.unrows(jnp.sum(sums, axis=1))
    first = adjoint[0].astype(initial.dtype)
    gradient, into_initial = walk.complete_adjoint(towards_past, starts, initial, first, totals)
    return gradient, adjoint, into_initial


@dataclass(frozen=True)
class _Plan(walk.Plan):
    """How the arrays of a recurrence are cut into blocks."""

    @property
    def is_flat(self) -> bool:
        """Whether all numbers of a step are lanes of one group."""
        return self.width % LANES != 0

    @property
    def all_blocks(self) -> int:
        """Blocks of the whole recurrence."""
        return pl.cdiv(self.length, self.steps)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of arrays over time: ``(steps of all blocks, groups, parts, lanes)``."""
        rows = self.all_blocks * self.steps
        if not self.is_flat:
            return rows, self.batch, self.parts, self.width
        return rows, 1, self.parts, LANES * pl.cdiv(self.batch * self.width, LANES)

    def blocked(self, x: Array) -> Array:
        """Return ``(T, B, c, P)`` in that shape: the steps that are walked last are followed by zeros."""
        padding = -self.length % self.steps
        x = self.rows(x)
        return jnp.pad(x, ((padding, 0) if self.reverse else (0, padding), (0, 0), (0, 0), (0, 0)))

    def unblocked(self, x: Array) -> Array:
        """Return such an array as ``(T, B, c, P)``."""
        begin = x.shape[0] - self.length if self.reverse else 0
        return self.unrows(x[begin : begin + self.length])

    def rows(self, x: Array) -> Array:
        """Return ``(..., B, c, P)`` as ``(..., groups, parts, lanes)``."""
        if not self.is_flat:
            return x
        flat = jnp.swapaxes(x, -3, -2).reshape(*x.shape[:-3], 1, x.shape[-2], -1)
        return jnp.pad(flat, [(0, 0)] * (flat.ndim - 1) + [(0, -flat.shape[-1] % LANES)])

    def unrows(self, x: Array) -> Array:
        """Return such an array as ``(..., B, c, P)``."""
        if not self.is_flat:
            return x
        flat = x[..., 0, :, : self.batch * self.width]
        return jnp.swapaxes(flat.reshape(*flat.shape[:-1], self.batch, self.width), -3, -2)

    def of_lanes(self, x: Array) -> Array:
        """Return ``(rows, B)`` as ``(rows, groups, lanes)``."""
        spread = jnp.broadcast_to(x[:, :, None, None], (*x.shape, 1, self.width))
        return self.rows(spread)[..., 0, :]


def _plan(shape: tuple[int, ...], steps: int, segment: int | None, *, reverse: bool) -> _Plan:
    return _Plan.cut(shape, steps, segment, reverse=reverse, lanes=LANES, enough=ENOUGH, programs=PROGRAMS)


class _Blocks:
    """The arrays of a recurrence, cut into blocks, and its kernels."""

    def __init__(
        self, plan: _Plan, decay: Array, drops: Array, arrays: Sequence[Array], initial: Array
    ) -> None:
        self.plan = plan
        self.arrays = list(arrays)
        words = walk.reset_words(drops, plan.steps, reverse=plan.reverse)
        self.words = plan.of_lanes(words)
        groups, parts, lanes = plan.shape[1:]
        spread = jnp.broadcast_to(decay, (plan.batch, *decay.shape)) if plan.is_flat else decay[None]
        self.decay, self.initial = plan.rows(spread)[0], initial
        self.ends, self.dropped = self.initial[None], self.words  # of one segment nobody reads them
        if plan.segments > 1:
            self.dropped = walk.segments_with_resets(self.words, plan.blocks)
            first, self.initial = self.initial, jnp.zeros_like(initial)
            shape = jax.ShapeDtypeStruct((plan.segments, groups, parts, lanes), initial.dtype)
            (self.ends,) = self.run(
                _ends_kernel, [shape], "resettable_scan_ends", outputs=0, arrays=self.arrays[:1]
            )
            self.initial = first

    def run(
        self,
        kernel: Callable[..., None],
        shapes: list[Any],
        name: str,
        *,
        outputs: int,
        arrays: list[Array] | None = None,
    ) -> list[Array]:
        """Run a kernel whose first ``outputs`` results are cut into blocks."""
        plan, arrays = self.plan, self.arrays if arrays is None else arrays
        block = plan.steps, plan.parts, LANES
        body = partial(kernel, plan=plan, sources=len(arrays))
        body.__name__ = name  # type: ignore[attr-defined]
        call = plgpu.kernel(
            body,
            out_type=shapes,
            scratch_types={
                "incoming": [plgpu.SMEM((STAGES, *block), x.dtype) for x in arrays],
                "bits": plgpu.SMEM((STAGES, LANES), jnp.int32),
                "outgoing": [plgpu.SMEM((2, *block), x.dtype) for x in shapes[:outputs]],
                "arrived": plgpu.Barrier(num_arrivals=len(arrays) + 1, num_barriers=STAGES),
            },
            compiler_params=plgpu.CompilerParams(
                unsafe_no_auto_barriers=True,  # no thread reads shared memory that it writes
                lowering_semantics=plgpu.LoweringSemantics.Lane,
            ),
            grid=(plan.segments, plan.shape[1], plan.shape[3] // LANES),
            grid_names=("segment", "group", "tile"),
        )
        arguments = self.decay, self.ends, self.dropped, self.initial, self.words, *arrays
        result: list[Array] = call(*arguments)
        return result


class _Lanes:
    """The lanes of one program, and the stages through which their blocks go."""

    def __init__(self, plan: _Plan, sources: int, refs: Sequence[Any], scratch: dict[str, Any]) -> None:
        self.plan = plan
        self.decay, self.ends, self.dropped, self.initial, self.words = refs[:5]
        self.sources, self.results = refs[5 : 5 + sources], refs[5 + sources :]
        self.incoming, self.bits = scratch["incoming"], scratch["bits"]
        self.outgoing, self.arrived = scratch["outgoing"], scratch["arrived"]
        self.segment, self.group = lax.axis_index("segment"), lax.axis_index("group")
        self.lanes = pl.ds(lax.axis_index("tile") * LANES, LANES)
        self.factor = tuple(self.decay[part, self.lanes] for part in range(plan.parts))

    def read(self, ref: Any, *at: Any) -> Number:
        """Read one number a lane, from ``ref (..., groups, parts, lanes)``."""
        return tuple(ref[(*at, self.group, part, self.lanes)] for part in range(self.plan.parts))

    def write(self, ref: Any, number: Number, *at: Any) -> None:
        """Write one number a lane."""
        for part, value in enumerate(number):
            ref[(*at, self.group, part, self.lanes)] = value

    def _numbers(self, buffer: Any, stage: Any, row: int) -> Number:
        return tuple(buffer[stage, row, part].astype(jnp.float32) for part in range(self.plan.parts))

    def first_state(self) -> Number:
        """Return the state that this program's segment begins with."""
        if self.plan.segments == 1:
            return self.read(self.initial)
        factor = walk.squared(self.factor, self.plan.squarings)

        def cross(k: Any, state: Number) -> Number:
            drop = self.dropped[k, self.group, self.lanes] != 0
            return walk.advance(factor, drop, self.read(self.ends, k), state)

        state: Number = lax.fori_loop(0, self.segment, cross, self.read(self.initial))
        return state

    def walk(self, advance: Callable[..., Any], state: Any) -> Any:
        """Call ``advance(drop, *numbers, state) -> state, numbers out`` for every step of the segment."""
        plan = self.plan
        begin = self.segment * plan.blocks
        count = jnp.minimum(plan.blocks, plan.all_blocks - begin)

        def rows(block: Any) -> Any:
            at = begin + block
            return pl.ds((plan.all_blocks - 1 - at if plan.reverse else at) * plan.steps, plan.steps)

        def fetch(block: Any, stage: Any) -> None:
            arrived = self.arrived.at[stage]
            for source, buffer in zip(self.sources, self.incoming, strict=True):
                block_of = source.at[rows(block), self.group, :, self.lanes]
                plgpu.copy_gmem_to_smem(block_of, buffer.at[stage], arrived)
            words = self.words.at[begin + block, self.group, self.lanes]
            plgpu.copy_gmem_to_smem(words, self.bits.at[stage], arrived)

        for stage in range(min(STAGES, plan.blocks)):
            pl.when(stage < count)(partial(fetch, stage, stage))

        def run_block(block: Any, state: Any) -> Any:
            stage, out = lax.rem(block, np.int32(STAGES)), lax.rem(block, np.int32(2))
            plgpu.barrier_wait(self.arrived.at[stage])
            if self.outgoing:
                plgpu.wait_smem_to_gmem(1, wait_read_only=True)
            word = self.bits[stage]
            order = range(plan.steps)[::-1] if plan.reverse else range(plan.steps)
            # All before anything is written: for all the compiler knows, writing changes what they read.
            numbers = [[self._numbers(buffer, stage, row) for buffer in self.incoming] for row in order]
            for i, row in enumerate(order):
                state, results = advance(walk.is_set(word, i), *numbers[i], state)
                for buffer, number in zip(self.outgoing, results, strict=True):
                    for part, value in enumerate(number):
                        buffer[out, row, part] = value.astype(buffer.dtype)
            plgpu.commit_smem()
            for buffer, result in zip(self.outgoing, self.results, strict=False):
                plgpu.copy_smem_to_gmem(buffer.at[out], result.at[rows(block), self.group, :, self.lanes])
            pl.when(block + STAGES < count)(partial(fetch, block + STAGES, stage))
            return state

        state = lax.fori_loop(0, count, run_block, state)
        if self.outgoing:
            plgpu.wait_smem_to_gmem(0)
        return state


def _ends_kernel(*refs: Any, plan: _Plan, sources: int, **scratch: Any) -> None:
    lanes = _Lanes(plan, sources, refs, scratch)

    def advance(drop: Array, input_t: Number, state: Number) -> tuple[Number, list[Number]]:
        return walk.advance(lanes.factor, drop, input_t, state), []

    state = lanes.walk(advance, lanes.read(lanes.initial))
    lanes.write(lanes.results[0], state, lanes.segment)


def _forward_kernel(*refs: Any, plan: _Plan, sources: int, **scratch: Any) -> None:
    lanes = _Lanes(plan, sources, refs, scratch)

    def advance(drop: Array, input_t: Number, state: Number) -> tuple[Number, list[Number]]:
        state = walk.advance(lanes.factor, drop, input_t, state)
        return state, [state]

    lanes.walk(advance, lanes.first_state())


def _adjoint_kernel(*refs: Any, plan: _Plan, sources: int, **scratch: Any) -> None:
    lanes = _Lanes(plan, sources, refs, scratch)

    def advance(drop: Array, cotangent_t: Number, state: Number, carry: Any) -> tuple[Any, list[Number]]:
        carry = walk.advance_adjoint(lanes.factor, drop, cotangent_t, state, carry)
        return carry, [carry[0]]

    nothing = lanes.read(lanes.initial)
    _, same, crossed = lanes.walk(advance, (lanes.first_state(), nothing, nothing))
    lanes.write(lanes.results[1], same, 0, lanes.segment)
    lanes.write(lanes.results[1], crossed, 1, lanes.segment)
