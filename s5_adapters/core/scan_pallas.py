"""The resettable recurrence as a GPU kernel: one pass over memory, forwards and in the adjoint.

Every lane of every sequence is independent, so a lane belongs to one thread, which walks through time with
its state in registers: each input is read once and each state written once. What limits such a walk is how
many loads are under way, so the next ``steps`` loads are always issued before the current ones are used.
The state, the decay and its gradient are float32; inputs and cotangents may be bfloat16.

Written in Pallas for Triton (CUDA, compute capability 8.0 or newer). On any other platform the same kernel
runs in Pallas' interpreter: right, and far too slow for anything but tests.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from s5_adapters.core import planar
from s5_adapters.core.scan_methods import following

LANES: Final = 32
"""Lanes of a program: one warp, so that many programs share a processor."""
FORWARD_STEPS: Final = 32
ADJOINT_STEPS: Final = 16
"""Steps whose loads are under way together; the adjoint reads two arrays, hence half."""

Number = tuple[Array, ...]
"""One number for each lane: its real part, and its imaginary part if the recurrence is complex."""


def pallas(
    decay: Array, inputs: Array, starts: Array | None, initial: Array, *, steps: int = FORWARD_STEPS
) -> Array:
    """Solve the recurrence; arguments and result as for every method, see ``scan_methods``."""
    length, batch, parts, width = inputs.shape
    if not inputs.size:
        return jnp.zeros(inputs.shape, initial.dtype)
    kernel = partial(_forward_kernel, steps=min(steps, length), parts=parts, width=width, batch=batch)
    (states,) = _call(
        kernel,
        (decay, inputs.reshape(length, -1), _bytes(starts, length, batch), initial.reshape(-1)),
        [jax.ShapeDtypeStruct((length, batch * parts * width), initial.dtype)],
        lanes=batch * width,
        name="resettable_scan",
    )
    return states.reshape(inputs.shape)


def pallas_adjoint(
    decay: Array,
    cotangent: Array,
    starts: Array | None,
    states: Array,
    initial: Array,
    *,
    steps: int = ADJOINT_STEPS,
) -> tuple[Array, Array, Array]:
    """Run the adjoint and gather the decay's gradient in the same pass; see ``scan_adjoint``."""
    length, batch, parts, width = states.shape
    if not states.size:
        return jnp.zeros_like(decay), cotangent, jnp.zeros_like(initial)
    towards_past = planar.conjugate(decay)
    drops = _bytes(None if starts is None else following(starts), length, batch)
    if starts is None:
        drops = drops.at[-1].set(1)
    kernel = partial(_adjoint_kernel, steps=min(steps, length), parts=parts, width=width, batch=batch)
    adjoint, sums = _call(
        kernel,
        (towards_past, cotangent.reshape(length, -1), drops, states.reshape(length, -1)),
        [
            jax.ShapeDtypeStruct((length, batch * parts * width), cotangent.dtype),
            jax.ShapeDtypeStruct((2 * initial.size,), initial.dtype),
        ],
        lanes=batch * width,
        name="resettable_scan_adjoint",
    )
    adjoint = adjoint.reshape(states.shape)
    same, crossed = sums.reshape(2, *initial.shape)
    first = None if starts is None else starts[0]
    kept = planar.select(first, adjoint[0].astype(initial.dtype))
    before = planar.select(first, initial)
    total = planar.combine_conjugate_sums(
        jnp.sum(same + before * kept, axis=0), jnp.sum(crossed + before * kept[:, ::-1], axis=0)
    )
    return total, adjoint, planar.multiply(towards_past, kept)


def _call(
    kernel: Callable[..., None], arguments: tuple[Array, ...], shapes: list[Any], *, lanes: int, name: str
) -> list[Array]:
    def run(*arguments: Array, interpret: bool) -> list[Array]:
        call = pl.pallas_call(
            kernel,
            out_shape=shapes,
            grid=(pl.cdiv(lanes, LANES),),
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
    """Where the lanes of one program lie in arrays whose rows are ``(batch, parts, width)``."""

    def __init__(self, *, batch: int, parts: int, width: int) -> None:
        lane = pl.program_id(0) * LANES + jnp.arange(LANES)
        self.inside = lane < batch * width
        self.sequence = lane // width
        within = lane % width
        self.weights = [part * width + within for part in range(parts)]
        self.elements = [(self.sequence * parts + part) * width + within for part in range(parts)]

    def read(self, ref: Any, row: Any = None) -> Number:
        """Read one number a lane, as float32, from a row of ``ref`` or from ``ref`` itself."""
        at = [offsets if row is None else (row, offsets) for offsets in self.elements]
        return tuple(
            triton.load(ref.at[index], mask=self.inside, other=0.0).astype(jnp.float32) for index in at
        )

    def read_weight(self, ref: Any) -> Number:
        """Read the number that all sequences share, from ``ref (parts, width)``."""
        within = self.weights[0]
        return tuple(
            triton.load(ref.at[part, within], mask=self.inside, other=0.0)
            for part in range(len(self.weights))
        )

    def read_flag(self, ref: Any, row: Any) -> Array:
        """Whether the lanes' sequences drop their state at that row."""
        return jnp.asarray(triton.load(ref.at[row, self.sequence], mask=self.inside, other=0) != 0)

    def write(self, ref: Any, number: Number, row: Any) -> None:
        """Write one number a lane into a row of ``ref``."""
        for offsets, part in zip(self.elements, number, strict=True):
            triton.store(ref.at[row, offsets], part.astype(ref.dtype), mask=self.inside)


def _walk(length: int, steps: int, load: Any, advance: Any, state: Any) -> Any:
    """Call ``advance(i, load(i), state)`` for i = 0, 1, ..., the next ``steps`` loads always under way."""
    count = length // steps

    def load_all(block: Any) -> list[Any]:
        return [load(block * steps + i) for i in range(steps)]

    def run_block(block: Any, carry: Any) -> Any:
        state, loaded = carry
        coming = load_all(jnp.minimum(block + 1, count - 1))
        for i in range(steps):
            state = advance(block * steps + i, loaded[i], state)
        return state, coming

    state, _ = lax.fori_loop(0, count, run_block, (state, load_all(0)))
    return lax.fori_loop(count * steps, length, lambda i, state: advance(i, load(i), state), state)


def _times(a: Number, b: Number) -> Number:
    if len(a) == 1:
        return (a[0] * b[0],)
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def _plus(a: Number, b: Number) -> Number:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _unless(drop: Array, a: Number) -> Number:
    return tuple(jnp.where(drop, 0.0, x) for x in a)


def _forward_kernel(
    decay: Any, inputs: Any, starts: Any, initial: Any, states: Any, *, steps: int, **layout: int
) -> None:
    lanes = _Lanes(**layout)
    factor = lanes.read_weight(decay)

    def load(t: Any) -> tuple[Number, Array]:
        return lanes.read(inputs, t), lanes.read_flag(starts, t)

    def advance(t: Any, loaded: tuple[Number, Array], state: Number) -> Number:
        input_t, start = loaded
        state = _plus(input_t, _times(factor, _unless(start, state)))
        lanes.write(states, state, t)
        return state

    _walk(inputs.shape[0], steps, load, advance, lanes.read(initial))


def _adjoint_kernel(
    decay: Any,
    cotangent: Any,
    drops: Any,
    states: Any,
    adjoint: Any,
    sums: Any,
    *,
    steps: int,
    **layout: int,
) -> None:
    lanes = _Lanes(**layout)
    factor = lanes.read_weight(decay)
    last = cotangent.shape[0] - 1

    def load(i: Any) -> tuple[Number, Number, Array]:
        t = last - i
        return lanes.read(cotangent, t), lanes.read(states, t), lanes.read_flag(drops, t)

    def advance(i: Any, loaded: tuple[Number, Number, Array], carry: Any) -> Any:
        cotangent_t, state, drop = loaded
        later, same, crossed = carry
        kept, state = _unless(drop, later), _unless(drop, state)
        same = tuple(s + x * y for s, x, y in zip(same, state, kept, strict=True))
        crossed = tuple(s + x * y for s, x, y in zip(crossed, state, reversed(kept), strict=True))
        reached = _plus(cotangent_t, _times(factor, kept))
        lanes.write(adjoint, reached, last - i)
        return reached, same, crossed

    zeros = tuple(jnp.zeros(LANES, jnp.float32) for _ in lanes.elements)
    _, same, crossed = _walk(last + 1, steps, load, advance, (zeros, zeros, zeros))
    half = sums.shape[0] // 2
    for offsets, total, cross in zip(lanes.elements, same, crossed, strict=True):
        triton.store(sums.at[offsets], total, mask=lanes.inside)
        triton.store(sums.at[half + offsets], cross, mask=lanes.inside)
