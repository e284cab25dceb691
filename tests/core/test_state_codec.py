"""States as rows of numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5_adapters.core import ActorCritic, ActorCriticConfig, Discrete, make_memory
from s5_adapters.core.memories.state_codec import StateCodec

SIZES = {"d_model": 8, "n_layers": 2}


@pytest.mark.parametrize("name", ["s5", "mamba", "gru", "lstm", "attention", "feedforward"])
def test_a_memorys_state_comes_back(name: str) -> None:
    memory = make_memory(name, **SIZES)
    codec = StateCodec(memory.state_shape)
    drawn = jax.random.normal(jax.random.key(0), (3, codec.size))
    state = codec.unpack(drawn)
    assert jax.tree.structure(state) == jax.tree.structure(memory.initial_state(3))
    for leaf, zeros in zip(jax.tree.leaves(state), jax.tree.leaves(memory.initial_state(3)), strict=True):
        assert (leaf.shape, leaf.dtype) == (zeros.shape, zeros.dtype)
    np.testing.assert_array_equal(codec.pack(state, 3), drawn)
    np.testing.assert_array_equal(codec.pack(memory.initial_state(3), 3), jnp.zeros((3, codec.size)))


def test_a_networks_two_states_lie_one_after_the_other_and_padding_is_dropped() -> None:
    config = ActorCriticConfig(
        obs_shape=(3,),
        action=Discrete(2),
        memory="gru",
        memory_config=SIZES,
        encoder=(4,),
        critic_memory="separate",
    )
    net = ActorCritic(config)
    codec, one = StateCodec(net.state_shape), StateCodec(net.memory.state_shape)
    assert codec.size == 2 * one.size == 32
    drawn = jax.random.normal(jax.random.key(0), (3, codec.size))
    padded = jnp.pad(drawn, ((0, 0), (0, 5)), constant_values=jnp.nan)
    jax.tree.map(np.testing.assert_array_equal, codec.unpack(padded), codec.unpack(drawn))
    critics = one.unpack(drawn[:, one.size :])
    jax.tree.map(np.testing.assert_array_equal, codec.unpack(drawn)[1], critics)
