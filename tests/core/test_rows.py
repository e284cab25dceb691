"""Dense maps of rows: flax's values and JAX's gradients, however many leading axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from s5_adapters.core.xla import rows

pytestmark = pytest.mark.full_compilation


def normal(*shape):
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("leading", [(), (5,), (2, 3), (0, 4)])
def test_maps_and_gradients_are_those_of_the_plain_expressions(leading):
    x, kernel, bias, factor = normal(*leading, 6), normal(6, 4), normal(4), normal(4)

    def ours(x, kernel, bias, factor):
        return jnp.sin(rows.scale(factor, rows.dense(x, kernel, bias)))

    def plain(x, kernel, bias, factor):
        return jnp.sin(factor * (x @ kernel + bias))

    got, pull_back = jax.vjp(ours, x, kernel, bias, factor)
    expected, expected_pull_back = jax.vjp(plain, x, kernel, bias, factor)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    cotangent = normal(*leading, 4)
    for mine, theirs in zip(pull_back(cotangent), expected_pull_back(cotangent), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


def rounded(x):
    return np.asarray(x.astype(jnp.bfloat16), np.float64)


@pytest.mark.parametrize("leading", [(5,), (2, 3)])
def test_a_cpu_rounds_the_factors_when_asked_to(leading):
    x, kernel, cotangent = normal(*leading, 6), normal(6, 4), normal(*leading, 4)
    exact, _ = jax.vjp(rows.product, x, kernel)
    with jax.default_matmul_precision("bfloat16"):
        got, pull_back = jax.vjp(rows.product, x, kernel)
        of_x, of_kernel = pull_back(cotangent)
    np.testing.assert_allclose(got, rounded(x) @ rounded(kernel), rtol=1e-5, atol=1e-6)
    assert not np.allclose(got, exact, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(of_x, rounded(cotangent) @ rounded(kernel).T, rtol=1e-5, atol=1e-6)
    flat_x, flat_cotangent = (rounded(a).reshape(-1, a.shape[-1]) for a in (x, cotangent))
    np.testing.assert_allclose(of_kernel, flat_x.T @ flat_cotangent, rtol=1e-5, atol=1e-6)
    assert {got.dtype, of_x.dtype, of_kernel.dtype} == {jnp.dtype(jnp.float32)}


def test_other_types_are_never_rounded():
    x, kernel = normal(5, 6).astype(jnp.float16), normal(6, 4).astype(jnp.float16)
    with jax.default_matmul_precision("bfloat16"):
        assert "bf16" not in str(jax.make_jaxpr(rows.product)(x, kernel))


def test_gradients_agree_under_vmap():
    x, kernel, bias = normal(3, 5, 6), normal(3, 6, 4), normal(3, 4)

    def gradient(dense):
        return jax.vmap(jax.grad(lambda b, x, k: jnp.sin(dense(x, k, b)).sum()))(bias, x, kernel)

    np.testing.assert_allclose(
        gradient(rows.dense), gradient(lambda x, k, b: x @ k + b), rtol=1e-5, atol=1e-5
    )


def test_the_module_is_flaxs_with_the_same_parameters():
    x, key = normal(2, 3, 6), jax.random.key(0)
    (ours, params), (theirs, expected) = (
        module.init_with_output(key, x) for module in (rows.Dense(4), nn.Dense(4))
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, params, expected)
