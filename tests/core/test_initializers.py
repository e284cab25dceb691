"""The orthogonal initialiser: flax's values, and no decomposition is ever batched."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from s5_adapters.core import ActorCritic, ActorCriticConfig, Discrete
from s5_adapters.core.memories.memory import memory_names
from s5_adapters.core.xla.initializers import orthogonal

QR = re.compile(r"@lapack_sgeqrf\w*\(.*: \(tensor<([0-9x]+)xf32>")


def test_values_are_flaxs_alone_and_batched():
    keys = jax.random.split(jax.random.key(0), 6).reshape(2, 3)
    whole, ours = nn.initializers.orthogonal(2.0), orthogonal(2.0)
    np.testing.assert_array_equal(ours(keys[0, 0], (8, 5)), whole(keys[0, 0], (8, 5)))
    batched = jax.vmap(jax.vmap(lambda key: ours(key, (8, 5))))(keys)
    expected = jax.vmap(jax.vmap(lambda key: whole(key, (8, 5))))(keys)
    np.testing.assert_allclose(batched, expected, atol=1e-6)


@pytest.mark.parametrize("memory", memory_names())
def test_many_seeds_at_once_never_batch_a_decomposition(memory):
    """Several batched ones in one program deadlock on two CPU cores; see `orthogonal`."""
    policy = ActorCritic(
        ActorCriticConfig(
            obs_shape=(3,),
            action=Discrete(2),
            encoder=(8,),
            memory=memory,
            memory_config={"d_model": 8, "n_layers": 2},
        )
    )
    keys = jax.random.split(jax.random.key(0), 4)
    program = jax.jit(jax.vmap(policy.init)).lower(keys).as_text()
    shapes = QR.findall(program)
    assert shapes, "no decomposition found: the pattern no longer fits the program"
    assert all(shape.count("x") == 1 for shape in shapes), shapes


def test_a_program_of_many_batched_initialisers_ends():
    init = orthogonal()
    keys = jax.random.split(jax.random.key(0), 4)
    made = jax.jit(
        lambda: [jax.vmap(lambda key, n=n: init(key, (n, n)))(keys) for n in (64, 80, 96, 128) * 2]
    )()
    for matrices in made:
        products = jnp.einsum("bij,bik->bjk", matrices, matrices)
        np.testing.assert_allclose(
            products, np.broadcast_to(np.eye(products.shape[-1]), products.shape), atol=1e-5
        )
