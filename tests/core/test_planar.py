"""Complex arithmetic on pairs against numpy's complex128."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5_adapters.core.recurrence import planar

pytestmark = pytest.mark.full_compilation


def numbers(seed: int, size: int = 64, scale: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (scale * (rng.normal(size=size) + 1j * rng.normal(size=size))).astype(np.complex64)


def pair(z: np.ndarray) -> jax.Array:
    return planar.from_complex(jnp.asarray(z))


def test_there_and_back() -> None:
    z = numbers(0).reshape(4, 16)
    assert pair(z).shape == (4, 2, 16)
    np.testing.assert_array_equal(planar.to_complex(pair(z)), z)


def test_multiply_divide_conjugate() -> None:
    x, y = numbers(1).astype(np.complex128), numbers(2).astype(np.complex128)
    got = [planar.multiply(pair(x), pair(y)), planar.divide(pair(x), pair(y)), planar.conjugate(pair(x))]
    for ours, theirs in zip(got, (x * y, x / y, np.conj(x)), strict=True):
        np.testing.assert_allclose(planar.to_complex(ours), theirs, rtol=2e-6, atol=1e-6)


def test_sum_of_conjugate_products() -> None:
    x, y = numbers(1, 60).reshape(3, 4, 5), numbers(2, 60).reshape(3, 4, 5)
    got = planar.multiply_conjugate_sum(pair(x), pair(y))
    expected = (np.conj(x.astype(np.complex128)) * y).sum(axis=(0, 1))
    np.testing.assert_allclose(planar.to_complex(got), expected, rtol=1e-5)
    real = planar.multiply_conjugate_sum(pair(x)[:, :, :1], pair(y)[:, :, :1])
    np.testing.assert_allclose(real[0], (x.real * y.real).sum(axis=(0, 1)), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0])
def test_expm1_keeps_its_digits_near_zero(scale: float) -> None:
    z = numbers(3, scale=scale).astype(np.complex128)
    got = np.asarray(planar.to_complex(planar.expm1(pair(z))), np.complex128)
    assert np.max(np.abs(got - np.expm1(z)) / np.abs(np.expm1(z))) < 1e-6


def test_exp() -> None:
    z = numbers(4).astype(np.complex128)
    np.testing.assert_allclose(planar.to_complex(planar.exp(pair(z))), np.exp(z), rtol=2e-6)


@pytest.mark.parametrize("compiled", [False, True])
def test_high_powers_keep_their_digits(compiled: bool) -> None:
    # Plain repeated squaring is off by 1e-4 at the 4096th power; compiled, the compensation must survive XLA.
    rng = np.random.default_rng(5)
    decay = rng.uniform(0.9995, 0.99999, 64) * np.exp(1j * rng.uniform(-np.pi, np.pi, 64))
    decay = decay.astype(np.complex64)

    def powers(x: jax.Array) -> jax.Array:
        return jnp.stack(planar.squares(x, 13))

    transform: Callable[[Callable[..., jax.Array]], Callable[..., jax.Array]]
    transform = jax.jit if compiled else (lambda function: function)
    complex_powers = planar.to_complex(transform(powers)(pair(decay)))
    real_powers = transform(powers)(jnp.abs(decay)[None])[:, 0]
    for k in range(13):
        for base, got in ((decay, complex_powers[k]), (np.abs(decay), real_powers[k])):
            expected = base.astype(np.complex128) ** (2**k)
            assert np.max(np.abs(got - expected) / np.abs(expected)) < 3e-7, f"decay ** {2**k}"


@pytest.mark.parametrize("compiled", [False, True])
def test_powers_that_overflow_stay_finite(compiled: bool) -> None:
    decay = pair(np.array([1.5 + 0.5j, -1.2, 3e4 - 4e4j], np.complex64))
    transform = jax.jit if compiled else (lambda function: function)
    powers = transform(lambda x: jnp.stack(planar.squares(x, 13)))(decay)
    assert np.isfinite(powers).all()


def test_select_drops_even_a_nan() -> None:
    x = jnp.full((2, 2, 3), jnp.nan)
    got = planar.select(jnp.array([True, False]), x)
    assert not np.any(got[0])
    assert np.isnan(got[1]).all()
    assert planar.select(None, x) is x
