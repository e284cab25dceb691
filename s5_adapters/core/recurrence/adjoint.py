"""The adjoint of the resettable recurrence: ``s_t = g_t + conj(decay) * keep_{t+1} * s_{t+1}``.

That is the recurrence itself in the other direction. The inputs' gradient is ``s``; the decay's sums ``keep_t
* conj(x_{t-1}) * s_t`` over time and batch. In component form (see ``planar``) the inner product is real,
hence the conjugates; the conversion from complex64 and back turns them into JAX's convention.

A decay of every step has the index of the state it arrives at, ``decay_{t+1}`` above, and its gradient is not
summed.

An adjoint maps ``(decay, cotangent, starts, states, initial)`` to the gradients of the decay, the inputs and
the initial state; shapes as in ``methods``.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import jax.numpy as jnp
from jax import Array, lax

from s5_adapters.core.recurrence import planar
from s5_adapters.core.recurrence.methods import Method, associative, following
from s5_adapters.core.shapes import Bool, Float


def recurrence_adjoint(
    backwards: Method,
    decay: Float[Array, "c P"],
    cotangent: Float[Array, "T B c P"],
    starts: Bool[Array, "T B"] | None,
    states: Float[Array, "T B c P"],
    initial: Float[Array, "B c P"],
) -> tuple[Float[Array, "c P"], Float[Array, "T B c P"], Float[Array, "B c P"]]:
    """Run ``backwards``, the recurrence from the last step to the first, then sum.

    ``backwards`` brings its own gradient, so the adjoint has one too, as cheap.
    """
    towards_past = planar.conjugate(decay)
    drops = None if starts is None else following(starts)
    adjoint = backwards(towards_past, cotangent, drops, jnp.zeros_like(initial))
    first, later = (None, None) if starts is None else (starts[0], starts[1:])
    # Both factors are selected: a NaN state before a reset, times the zero of the other, would be a NaN.
    gradient = planar.multiply_conjugate_sum(
        planar.select(later, states[:-1]), planar.select(later, adjoint[1:])
    )
    into_first = planar.select(first, adjoint[0])
    gradient = gradient + planar.multiply_conjugate_sum(planar.select(first, initial), into_first)
    return gradient, adjoint, planar.multiply(towards_past, into_first)


def varying_adjoint(
    backwards: Method,
    decay: Float[Array, "T B c P"],
    cotangent: Float[Array, "T B c P"],
    starts: Bool[Array, "T B"] | None,
    states: Float[Array, "T B c P"],
    initial: Float[Array, "B c P"],
) -> tuple[Float[Array, "T B c P"], Float[Array, "T B c P"], Float[Array, "B c P"]]:
    """Do the same for ``decay (T, B, c, P)``; its gradient is ``keep_t * conj(x_{t-1}) * s_t``."""
    towards_past = planar.conjugate(decay)
    of_next = jnp.concatenate([towards_past[1:], jnp.zeros_like(decay[:1])])
    drops = None if starts is None else following(starts)
    adjoint = backwards(of_next, cotangent, drops, jnp.zeros_like(initial))
    before = jnp.concatenate([initial[None], states[:-1]])
    kept = planar.select(starts, adjoint)
    # Both factors are selected, as above.
    gradient = planar.multiply(planar.conjugate(planar.select(starts, before)), kept)
    return gradient, adjoint, planar.multiply(towards_past[0], kept[0])


def pallas_adjoint(
    decay: Float[Array, "c P"],
    cotangent: Float[Array, "T B c P"],
    starts: Bool[Array, "T B"] | None,
    states: Float[Array, "T B c P"],
    initial: Float[Array, "B c P"],
) -> tuple[Float[Array, "c P"], Float[Array, "T B c P"], Float[Array, "B c P"]]:
    """Run one GPU kernel that gathers the decay's gradient on its way, see ``pallas.py``."""
    from s5_adapters.core.recurrence import pallas as kernels

    return kernels.pallas_adjoint(decay, cotangent, starts, states, initial)


def mosaic_adjoint(
    decay: Float[Array, "c P"],
    cotangent: Float[Array, "T B c P"],
    starts: Bool[Array, "T B"] | None,
    states: Float[Array, "T B c P"],
    initial: Float[Array, "B c P"],
) -> tuple[Float[Array, "c P"], Float[Array, "T B c P"], Float[Array, "B c P"]]:
    """Do the same for GPUs since Hopper, see ``mosaic.py``; on any other platform by the associative scan."""
    from s5_adapters.core.recurrence import mosaic as kernels

    def backwards(decay: Array, inputs: Array, starts: Array | None, initial: Array) -> Array:
        starts = None if starts is None else jnp.flip(starts, axis=0)
        return jnp.flip(associative(decay, jnp.flip(inputs, axis=0), starts, initial), axis=0)

    gradients: tuple[Array, Array, Array] = lax.platform_dependent(
        decay,
        cotangent,
        starts,
        states,
        initial,
        cuda=kernels.mosaic_adjoint,
        default=partial(recurrence_adjoint, backwards),
    )
    return gradients


KERNEL_ADJOINTS: Final = {"pallas": pallas_adjoint, "mosaic": mosaic_adjoint}
"""The adjoints of the methods that are GPU kernels, which take float32, a single decay, and inputs also in
bfloat16."""
