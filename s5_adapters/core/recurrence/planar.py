"""Complex numbers as pairs of real arrays.

An array with a *component* axis before its last axis holds real numbers when that axis has length 1 and
complex numbers (real part, imaginary part) when it has length 2. One set of functions then serves both kinds
of decay, without complex
arithmetic: XLA fuses these expressions into one loop, and every framework at the boundary knows real arrays
only.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from s5_adapters.core.shapes import Bool, Complex, Float
from s5_adapters.core.xla.rows import sum_rows


def from_complex(x: Complex[Array, "*batch P"]) -> Float[Array, "*batch 2 P"]:
    """Move a complex array ``(..., P)`` to components ``(..., 2, P)``."""
    return jnp.stack([x.real, x.imag], axis=-2)


def to_complex(x: Float[Array, "*batch 2 P"]) -> Complex[Array, "*batch P"]:
    """Move components ``(..., 2, P)`` to a complex array ``(..., P)``."""
    return lax.complex(x[..., 0, :], x[..., 1, :])


def multiply(factor: Float[Array, "... c P"], x: Float[Array, "... c P"]) -> Float[Array, "... c P"]:
    """Multiply ``x (..., c, P)`` by ``factor (..., c, P)``, c being 1 (real) or 2 (complex).

    The complex product is one elementwise expression on the flipped component axis, which XLA turns into a
    single fusion.
    """
    if factor.shape[-2] == 1:
        return factor * x
    sign = jnp.array([[-1.0], [1.0]], x.dtype)
    return factor[..., :1, :] * x + (sign * factor[..., 1:, :]) * x[..., ::-1, :]


def conjugate(x: Float[Array, "... c P"]) -> Float[Array, "... c P"]:
    """Conjugate ``x (..., c, P)``; a real array is its own conjugate."""
    if x.shape[-2] == 1:
        return x
    return x * jnp.array([[1.0], [-1.0]], x.dtype)


def divide(x: Float[Array, "2 P"], y: Float[Array, "2 P"]) -> Float[Array, "2 P"]:
    """Divide ``x (2, P)`` by ``y (2, P)``."""
    return multiply(conjugate(y), x) / jnp.sum(y * y, axis=-2)


def expm1(z: Float[Array, "2 P"]) -> Float[Array, "2 P"]:
    """Return ``exp(z) - 1`` of ``z (2, P)`` without the cancellation that ``exp`` suffers near 0."""
    re, im = z
    half = jnp.sin(0.5 * im)
    return jnp.stack([jnp.expm1(re) * jnp.cos(im) - 2.0 * half * half, jnp.exp(re) * jnp.sin(im)])


def exp(z: Float[Array, "2 P"]) -> Float[Array, "2 P"]:
    """Return ``exp(z)`` of ``z (2, P)``."""
    re, im = z
    return jnp.exp(re) * jnp.stack([jnp.cos(im), jnp.sin(im)])


def squares(x: Float[Array, "c P"], count: int) -> list[Float[Array, "c P"]]:
    """Return ``[x, x**2, x**4, ...]``, ``count`` arrays like ``x (c, P)``, each correct to about one unit in
    the last place.

    Plain repeated squaring doubles the relative error every time, which near the unit circle costs four
    digits by the 4096th power. The powers are therefore carried as unevaluated sums of two floats (Dekker
    1971); overflow saturates at the largest finite number, so that a power that multiplies an exact zero
    still gives zero.
    """
    limit = float(np.finfo(x.dtype).max)
    high, low = x, jnp.zeros_like(x)
    powers = []
    for _ in range(count):
        powers.append(jnp.clip(jnp.nan_to_num(high, nan=limit), -limit, limit))
        # The barrier keeps XLA from fusing levels: a fused kernel rounds one value in two ways, and the error
        # terms are lost.
        high, low = lax.optimization_barrier(_square(high, low))
    return powers


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    total = a + b
    shadow = total - a
    return total, (a - (total - shadow)) + (b - shadow)


def _two_product(a: Array, b: Array) -> tuple[Array, Array]:
    mantissa = np.finfo(a.dtype).nmant
    exponent = np.finfo(a.dtype).nexp

    def split(x: Array) -> tuple[Array, Array]:
        upper = lax.reduce_precision(x, exponent, mantissa // 2)
        return upper, x - upper

    (a1, a2), (b1, b2) = split(a), split(b)
    product = a * b
    return product, ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2


def _product(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    high, low = _two_product(a[0], b[0])
    return _two_sum(high, low + (a[0] * b[1] + a[1] * b[0]))


def _square(high: Array, low: Array) -> tuple[Array, Array]:
    if high.shape[-2] == 1:
        return _product((high, low), (high, low))
    re, im = (high[0], low[0]), (high[1], low[1])
    squared_re, squared_im, cross = _product(re, re), _product(im, im), _product(re, im)
    difference, error = _two_sum(squared_re[0], -squared_im[0])
    difference, error = _two_sum(difference, error + (squared_re[1] - squared_im[1]))
    return jnp.stack([difference, 2.0 * cross[0]]), jnp.stack([error, 2.0 * cross[1]])


def select(drop: Bool[Array, "*batch"] | None, x: Float[Array, "*batch c P"]) -> Float[Array, "*batch c P"]:
    """Zero ``x (..., c, P)`` where ``drop (...)`` is True; ``None`` drops nothing.

    Selection, never multiplication: a NaN must not survive a reset.
    """
    if drop is None:
        return x
    return jnp.where(drop[..., None, None], jnp.zeros((), x.dtype), x)


def multiply_conjugate_sum(
    x: Float[Array, "*batch c P"], y: Float[Array, "*batch c P"]
) -> Float[Array, "c P"]:
    """Sum ``conj(x) * y`` over all axes but the components, ``(..., c, P) -> (c, P)``."""
    if x.shape[-2] == 1:
        return _sum(x * y)
    return combine_conjugate_sums(_sum(x * y), _sum(x * y[..., ::-1, :]))


def combine_conjugate_sums(same: Float[Array, "c P"], crossed: Float[Array, "c P"]) -> Float[Array, "c P"]:
    """Make the sum of ``conj(x) * y`` of those of ``x * y`` and of ``x`` times ``y``, components swapped."""
    if same.shape[-2] == 1:
        return same
    return jnp.stack([same[0] + same[1], crossed[0] - crossed[1]])


def _sum(x: Array) -> Array:
    return sum_rows(x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])).reshape(x.shape[-2:])
