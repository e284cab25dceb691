"""Dense maps of rows ``(..., F)``, written so that their gradients run at the machine's speed.

A vector's gradient is a sum over all rows. XLA's CPU backend runs such sums on one core, far below the
memory's speed: an S5 layer's backward pass spent a seventh of its time in the gradient of ``D``. A product
with a row of ones is much faster, so the functions here bring that gradient along. Elsewhere the sum stays a
sum.
"""

from __future__ import annotations

import math
from typing import Any, Final

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from s5_adapters.core.shapes import Float
from s5_adapters.core.xla.platform import default_platform

ROUNDING: Final = ("bfloat16", "BF16_BF16_F32")
"""The name in ``jax.default_matmul_precision`` of products of bfloat16 factors summed in float32."""


def product(x: Float[Array, "*batch F"], kernel: Float[Array, "F N"]) -> Float[Array, "*batch N"]:
    """Multiply ``x (..., F)`` by ``kernel (F, N)``, all rows as one matrix.

    With more than one leading axis XLA's CPU backend would transpose copies of both factors for the kernel's
    gradient, and then multiply them in its slowest layout. That backend also ignores
    ``jax.default_matmul_precision``, so the rounding it asks for is written out here.
    """
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    rounds = precision in ROUNDING and default_platform() == "cpu"
    multiply = _rounded_product if rounds and x.dtype == kernel.dtype == jnp.float32 else jnp.matmul
    return multiply(_as_matrix(x), kernel).reshape(*x.shape[:-1], kernel.shape[-1])


@jax.custom_vjp
def _rounded_product(x: Array, kernel: Array) -> Array:
    return _rounded_forward(x, kernel)[0]


def _rounded_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    factors = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    return _summed_in_float32(*factors, 1, 0), factors


def _rounded_backward(factors: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = factors
    rounded = cotangent.astype(jnp.bfloat16)
    # Behind a barrier the transposition stays a copy of its own: within the product it takes twice the time.
    columns = lax.optimization_barrier(lax.optimization_barrier(x).T)
    return _summed_in_float32(rounded, kernel, 1, 1), _summed_in_float32(columns, rounded, 1, 0)


def _summed_in_float32(a: Array, b: Array, axis_of_a: int, axis_of_b: int) -> Array:
    contracted = (((axis_of_a,), (axis_of_b,)), ((), ()))
    # The factors say all. Told a precision by name as well, XLA's CPU backend may refuse to compile.
    return lax.dot_general(
        a, b, contracted, precision=lax.Precision.DEFAULT, preferred_element_type=jnp.float32
    )


_rounded_product.defvjp(_rounded_forward, _rounded_backward)


def sum_rows(x: Float[Array, "*batch N"]) -> Float[Array, "N"]:
    """Sum ``x (..., N)`` over all axes but the last."""
    rows = _as_matrix(x)
    if default_platform() != "cpu":
        return jnp.sum(rows, axis=0)
    ones = jnp.ones((1, len(rows)), x.dtype)
    return jnp.matmul(ones, rows, precision=lax.Precision.HIGHEST)[0]


def _as_matrix(x: Array) -> Array:
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


@jax.custom_vjp
def add_bias(x: Float[Array, "*batch N"], bias: Float[Array, "N"]) -> Float[Array, "*batch N"]:
    """Add ``bias (N,)`` to ``x (..., N)``."""
    return x + bias


def _add_bias_forward(x: Array, bias: Array) -> tuple[Array, None]:
    return x + bias, None


def _add_bias_backward(_: None, cotangent: Array) -> tuple[Array, Array]:
    return cotangent, sum_rows(cotangent)


add_bias.defvjp(_add_bias_forward, _add_bias_backward)


def dense(
    x: Float[Array, "*batch F"], kernel: Float[Array, "F N"], bias: Float[Array, "N"]
) -> Float[Array, "*batch N"]:
    """Return ``x @ kernel + bias`` for ``x (..., F)``, ``kernel (F, N)`` and ``bias (N,)``."""
    return add_bias(product(x, kernel), bias)


@jax.custom_vjp
def scale(factor: Float[Array, "N"], x: Float[Array, "*batch N"]) -> Float[Array, "*batch N"]:
    """Multiply ``x (..., N)`` by ``factor (N,)``."""
    return factor * x


def _scale_forward(factor: Array, x: Array) -> tuple[Array, tuple[Array, Array]]:
    return factor * x, (factor, x)


def _scale_backward(residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    factor, x = residuals
    return sum_rows(cotangent * x), factor * cotangent


scale.defvjp(_scale_forward, _scale_backward)


class Dense(nn.Module):
    """``flax.linen.Dense`` with the fast gradient of its bias: same parameters, same initial values."""

    features: int
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "*batch F"]) -> Float[Array, "*batch N"]:
        """Map ``(..., F)`` to ``(..., features)``."""
        kernel: Any = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        bias: Any = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
        mapped: Array = dense(x, kernel, bias)
        return mapped
