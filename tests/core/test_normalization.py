"""One formula for arrays of both libraries."""

import jax.numpy as jnp
import numpy as np
import torch

from s5_adapters.core.network.normalization import CLIP, EPSILON, normalize


def test_it_is_vecnormalizes_formula_in_jax_and_in_torch() -> None:
    rng = np.random.default_rng(0)
    x = 5 * rng.standard_normal((40, 3), np.float32)
    mean, variance = rng.standard_normal(3, np.float32), rng.random(3, np.float32)
    variance[0] = 0.0
    wide = [array.astype(np.float64) for array in (x, mean, variance)]
    expected = np.clip((wide[0] - wide[1]) / np.sqrt(wide[2] + EPSILON), -CLIP, CLIP)
    assert {-CLIP, CLIP} <= set(expected.ravel())
    jaxs = normalize(*map(jnp.asarray, (x, mean, variance)))
    torchs = normalize(*map(torch.from_numpy, (x, mean, variance)), sqrt=torch.sqrt)
    np.testing.assert_allclose(jaxs, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(torchs, expected, rtol=1e-5, atol=1e-6)
    halved = normalize(*map(jnp.asarray, (x, mean, variance)), 0.5, 2.0)
    np.testing.assert_allclose(
        halved, np.clip((wide[0] - wide[1]) / np.sqrt(wide[2] + 0.5), -2, 2), rtol=1e-5, atol=1e-6
    )
