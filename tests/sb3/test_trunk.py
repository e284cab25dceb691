"""The JAX part of a policy in sb3-contrib's layout: states, sequences against steps, and the core's own
network.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5_adapters.core import ActorCritic, ActorCriticConfig, Box, Discrete, make_memory
from s5_adapters.core.network.config import CRITIC_MEMORIES
from s5_adapters.core.network.trunk import Trunk
from s5_adapters.sb3.state import StateLayout
from s5_adapters.sb3.trunk import FlatTrunk, Programs
from s5_adapters.torch_bridge import to_torch


def config(**changes) -> ActorCriticConfig:
    base = {
        "obs_shape": (3,),
        "action": Discrete(2),
        "memory_config": {"d_model": 6, "d_state": 4, "n_layers": 2},
        "encoder": (5,),
        "actor_torso": (4,),
        "critic_torso": (7,),
        "activation": "tanh",
    }
    return ActorCriticConfig(**{**base, **changes})


def make(config: ActorCriticConfig, *, two_inputs: bool = False, orthogonal: bool = True) -> FlatTrunk:
    return FlatTrunk(Trunk(config, two_inputs, torso_gain=2**0.5), orthogonal)


def random_pair(trunk: FlatTrunk, batch: int, seed: int = 0) -> tuple[jax.Array, jax.Array]:
    layers, width = trunk.layout.shape
    first, second = jax.random.normal(jax.random.key(seed), (2, layers, batch, width))
    return first, second


def tensors(tree: Any) -> Any:
    return jax.tree.map(to_torch, tree)


@pytest.mark.parametrize("name", ["s5", "lru", "mamba", "gru", "feedforward"])
def test_a_state_survives_the_pair_layout(name: str) -> None:
    memory = make_memory(name, d_model=5, n_layers=3)
    layout = StateLayout(memory)
    state = jax.tree.map(
        lambda leaf: leaf + jnp.arange(leaf.size).reshape(leaf.shape), memory.initial_state(4)
    )
    pair = layout.pack(state, 4)
    assert all(part.shape == (layout.shape[0], 4, layout.shape[1]) for part in pair)
    back = layout.unpack(pair)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, back, state)


def test_s5s_state_is_hidden_and_cell_with_layers_first() -> None:
    memory = make_memory("s5", d_model=6, d_state=8, n_layers=3)
    layout = StateLayout(memory)
    assert layout.shape == (3, 4)
    real, imaginary = (jax.random.normal(jax.random.key(i), (2, 3, 4)) for i in range(2))
    hidden, cell = layout.pack((real, imaginary), 2)
    np.testing.assert_array_equal(hidden, real.swapaxes(0, 1))
    np.testing.assert_array_equal(cell, imaginary.swapaxes(0, 1))


@pytest.mark.parametrize(
    ("critic_memory", "two_inputs"),
    [*[(name, False) for name in CRITIC_MEMORIES], ("separate", True), ("none", True)],
)
def test_a_sequence_with_resets_equals_its_steps(critic_memory: str, two_inputs: bool) -> None:
    trunk = make(config(critic_memory=critic_memory), two_inputs=two_inputs)
    run = Programs.of(trunk)
    params = run.init(jax.random.key(1))
    prepared = run.prepare(params)
    n_seq, steps = 3, 7
    keys = jax.random.split(jax.random.key(2), 4)
    features = [jax.random.normal(k, (n_seq, steps, 3)) for k in keys[: 1 + two_inputs]]
    starts = jax.random.bernoulli(keys[2], 0.3, (n_seq, steps)).astype(jnp.float32)
    pi, vf = random_pair(trunk, n_seq, 3), random_pair(trunk, n_seq, 4)
    flat = tuple(x.reshape(n_seq * steps, 3) for x in features)
    latent_pi, latent_vf, pi_end, vf_end = jax.jit(trunk.sequence)(params, pi, vf, flat, starts.reshape(-1))
    assert (latent_pi.shape[-1], latent_vf.shape[-1]) == trunk.core.latent_widths == (4, 7)
    latent_pi, latent_vf = (x.reshape(n_seq, steps, -1) for x in (latent_pi, latent_vf))
    for t in range(steps):
        now = tensors((pi, vf, tuple(x[:, t] for x in features), starts[:, t]))
        one_pi, one_vf, pi, vf = jax.tree.map(jnp.asarray, run.step(prepared, *now))
        np.testing.assert_allclose(one_pi, latent_pi[:, t], atol=2e-6)
        np.testing.assert_allclose(one_vf, latent_vf[:, t], atol=2e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), (pi, vf), (pi_end, vf_end))


def test_act_is_steps_actor() -> None:
    trunk = make(config(critic_memory="separate"))
    run = Programs.of(trunk)
    prepared = run.prepare(run.init(jax.random.key(1)))
    pi, vf, x = random_pair(trunk, 4, 3), random_pair(trunk, 4, 4), jnp.ones((4, 3))
    starts = jnp.array([0.0, 1.0, 0.0, 0.0])
    latent, state = run.act(prepared, *tensors((pi, x, starts)))
    expected = run.step(prepared, *tensors((pi, vf, (x,), starts)))
    np.testing.assert_allclose(latent, expected[0], atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state, expected[2])


@pytest.mark.parametrize("critic_memory", CRITIC_MEMORIES)
@pytest.mark.parametrize("image", [False, True])
def test_with_heads_it_is_the_cores_network(critic_memory: str, image: bool) -> None:
    """The trunk's parameters and two dense heads, put together, give the core's own outputs."""
    core_config = config(
        critic_memory=critic_memory,
        action=Box((-1.0, -1.0), (1.0, 1.0)),
        **({"obs_shape": (40, 36, 3), "cnn_features": 8} if image else {}),
    )
    trunk, net = make(core_config), ActorCritic(core_config)
    run = Programs.of(trunk)
    params = run.init(jax.random.key(1))
    core_params = {"trunk": params, "heads": net.init(jax.random.key(2))["heads"]}
    steps, batch = 3, 2
    obs = jax.random.uniform(jax.random.key(3), (steps, batch, *core_config.obs_shape))
    starts = jnp.array([[True, True], [False, False], [False, True]])
    state, inputs, values = net.apply(core_params, net.initial_state(batch), obs, starts)
    rows = jnp.swapaxes(obs, 0, 1)
    rows = jnp.moveaxis(rows, -1, 2) if image else rows  # SB3's images have their channels first
    zeros = jax.tree.map(jnp.zeros_like, random_pair(trunk, batch))
    rows, flat_starts = rows.reshape(batch * steps, -1), starts.T.reshape(-1).astype(jnp.float32)
    latent_pi, latent_vf, pi, _ = jax.jit(trunk.sequence)(params, zeros, zeros, (rows,), flat_starts)

    def head(name: str, latent: jax.Array) -> jax.Array:
        dense = core_params["heads"][name]
        return (latent @ dense["kernel"] + dense["bias"]).reshape(batch, steps, -1).swapaxes(0, 1)

    np.testing.assert_allclose(head("actor", latent_pi), inputs[..., :2], atol=2e-5)
    np.testing.assert_allclose(head("critic", latent_vf)[..., 0], values, atol=2e-5)
    actor_state = state[0] if critic_memory == "separate" else state
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), trunk.layout.unpack(pi), actor_state
    )


def test_plain_initialisation_is_torchs_uniform_and_differs_between_layers() -> None:
    trunk = make(config(encoder=(50, 50)), orthogonal=False)
    params = jax.jit(trunk.init)(jax.random.key(0))
    first, second = (np.asarray(params["encoder"]["MLP_0"][f"Dense_{i}"]["kernel"]) for i in range(2))
    assert np.abs(first).max() <= 3**-0.5
    assert np.abs(second).max() <= 50**-0.5
    assert np.abs(second).max() > 0.9 * 50**-0.5
    assert np.abs(np.asarray(params["encoder"]["MLP_0"]["Dense_1"]["bias"])).max() > 0
    assert len(np.unique(second)) > 2000


def test_orthogonal_initialisation_is_sb3s() -> None:
    params = Programs.of(make(config())).init(jax.random.key(0))
    kernel = np.asarray(params["actor"]["Dense_0"]["kernel"])
    np.testing.assert_allclose(kernel.T @ kernel, 2 * np.eye(4), atol=1e-5)


def test_equal_trunks_share_their_programs() -> None:
    assert Programs.of(make(config())) is Programs.of(make(config()))
    assert Programs.of(make(config())) is not Programs.of(make(config(critic_memory="none")))
