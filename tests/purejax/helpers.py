from typing import Any

import jax
import numpy as np

from s5_adapters.purejax import PPOConfig


def small_config(**overrides: Any) -> PPOConfig:
    """A configuration that compiles and runs in seconds: 10 updates of 4 environments x 8 steps."""
    setting: dict[str, Any] = {
        "env_id": "RepeatPreviousEasy",
        "memory": "s5",
        "memory_config": {"d_model": 8, "d_state": 8, "n_layers": 1},
        "encoder": (8,),
        "actor_torso": (),
        "critic_torso": (),
        "num_envs": 4,
        "num_steps": 8,
        "num_epochs": 2,
        "num_minibatches": 2,
        "total_steps": 320,
    }
    return PPOConfig(**(setting | overrides))


def assert_same_bits(one: Any, other: Any) -> None:
    """Both pytrees have the same structure and the same bits."""
    flat_one, tree_one = jax.tree_util.tree_flatten_with_path(one)
    flat_other, tree_other = jax.tree_util.tree_flatten_with_path(other)
    assert tree_one == tree_other
    for (path, leaf_one), (_, leaf_other) in zip(flat_one, flat_other, strict=True):
        words_one, words_other = (np.asarray(_words(leaf)) for leaf in (leaf_one, leaf_other))
        assert words_one.dtype == words_other.dtype, jax.tree_util.keystr(path)
        assert words_one.tobytes() == words_other.tobytes(), jax.tree_util.keystr(path)


def _words(leaf: Any) -> Any:
    is_key = jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def same_bits(one: Any, other: Any) -> bool:
    """Tell whether both pytrees have the same structure and the same bits."""
    try:
        assert_same_bits(one, other)
    except AssertionError:
        return False
    return True
