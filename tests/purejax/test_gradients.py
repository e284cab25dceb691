"""The norm of all gradients and clipping by it, as a GPU computes them, against optax's own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from s5_adapters.purejax.algorithms import gradients


@pytest.mark.parametrize("limit", [0.1, 1e3], ids=["clipped", "left alone"])
def test_one_vector_of_all_gradients_has_optaxs_norm_and_is_clipped_as_optax_does(
    monkeypatch: pytest.MonkeyPatch, limit: float
) -> None:
    monkeypatch.setattr(gradients, "default_platform", lambda: "gpu")
    keys = jax.random.split(jax.random.key(0), 3)
    tree = {
        name: jax.random.normal(key, shape)
        for name, key, shape in zip("abc", keys, [(), (3,), (2, 2, 5)], strict=True)
    }
    np.testing.assert_allclose(gradients.global_norm(tree), optax.tree.norm(tree), rtol=1e-6)
    ours, theirs = gradients.clip_by_global_norm(limit), optax.clip_by_global_norm(limit)
    clipped, state = ours.update(tree, ours.init(tree))
    expected, _ = theirs.update(tree, theirs.init(tree))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), clipped, expected)
    # A checkpoint of a run on a CPU goes on on a GPU, and the other way round.
    assert jax.tree.structure(state) == jax.tree.structure(theirs.init(tree))
    assert not jnp.isfinite(gradients.global_norm(tree | {"a": jnp.array(jnp.nan)}))
