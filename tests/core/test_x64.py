"""With ``jax_enable_x64`` memories and network stay what they are without: float32, and their values."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5_adapters.core import ActorCritic, ActorCriticConfig, Box, make_memory
from s5_adapters.core.memories.memory import memory_names

CONFIGS = [(name, {"d_model": 8, "n_layers": 2}) for name in memory_names()] + [
    ("s5", {"d_model": 8, "norm": "pre", "gtrxl_norm": True, "discretization": "bilinear"})
]


def _run(name: str, config: dict[str, Any], dtype: Any) -> Any:
    """Return a function that initialises a memory and runs a sequence and a step, and its argument."""
    memory = make_memory(name, **config)
    x = jnp.asarray(np.linspace(-1, 1, 5 * 2 * 4).reshape(5, 2, 4), dtype)
    starts = jnp.zeros((5, 2), bool).at[2, 0].set(True)

    def run(x: Any) -> Any:
        state = memory.initial_state(2)
        params = memory.init(jax.random.key(0), x.shape[-1])
        after, y = memory.apply(params, state, x, starts)
        gradient = jax.grad(lambda params: memory.apply(params, state, x, starts)[1].sum())(params)
        return params, gradient, (after, y), memory.step(memory.prepare(params), after, x[0], starts[0])

    return run, x


@pytest.mark.parametrize(("name", "config"), CONFIGS)
def test_a_memory_has_the_types_that_it_has_without(name: str, config: dict[str, Any]) -> None:
    narrow = jax.eval_shape(*_run(name, config, np.float32))
    assert {x.dtype for x in jax.tree.leaves(narrow)} == {np.dtype(np.float32)}
    with jax.enable_x64(True):
        for dtype in (np.float32, np.float64):
            run, x = _run(name, config, dtype)
            assert x.dtype == dtype
            assert _types(jax.eval_shape(run, x)) == _types(narrow)


def _types(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


@pytest.mark.parametrize("name", ["s5", "attention"])
def test_a_memory_has_the_values_that_it_has_without(name: str) -> None:
    def values(dtype: Any) -> Any:
        run, x = _run(name, {"d_model": 8, "n_layers": 1}, dtype)
        return jax.jit(run)(x)

    narrow = values(np.float32)
    with jax.enable_x64(True):
        wide = values(np.float64)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), wide, narrow)


@pytest.mark.parametrize("critic_memory", ["shared", "separate"])
def test_a_network_has_the_types_that_it_has_without(critic_memory: str) -> None:
    net = ActorCritic(
        ActorCriticConfig(
            obs_shape=(3,),
            action=Box((-1.0,), (1.0,)),
            memory_config={"d_model": 8, "d_state": 8},
            encoder=(8,),
            actor_torso=(8,),
            critic_torso=(8,),
            critic_memory=critic_memory,
        )
    )

    def run(key: Any) -> Any:
        params = net.init(key)
        obs = jnp.asarray(np.linspace(-1, 1, 2 * 4 * 3).reshape(2, 4, 3))  # float64 under x64
        return params, net.apply(params, net.initial_state(4), obs, jnp.zeros((2, 4), bool))

    narrow = jax.eval_shape(run, jax.random.key(0))
    with jax.enable_x64(True):
        assert _types(jax.eval_shape(run, jax.random.key(0))) == _types(narrow)
        assert _types(net.param_shapes()) == _types(narrow[0])
