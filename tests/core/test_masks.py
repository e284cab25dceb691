"""Masks of allowed actions in the core: distributions, the network, the policy and its file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from s5_adapters.core import (
    ActorCritic,
    ActorCriticConfig,
    Box,
    Discrete,
    MaskedObservation,
    MultiDiscrete,
    distribution,
)
from s5_adapters.core.files.stablehlo import export_stablehlo
from s5_adapters.core.files.weights import Policy, load_policy, require_same_network, save_policy
from s5_adapters.core.network.masks import MASKED, mask_inputs

SIZES = {"d_model": 8, "d_state": 8, "n_layers": 1}


def config(action: Any, **changes: Any) -> ActorCriticConfig:
    small = {"memory_config": SIZES, "encoder": (), "actor_torso": (), "critic_torso": ()}
    return ActorCriticConfig(obs_shape=(3,), action=action, action_mask=True, **(small | changes))


def masked(action: Any, inputs: Any, mask: Any) -> Any:
    return distribution(action, mask_inputs(action, jnp.asarray(inputs), jnp.asarray(mask)))


def test_forbidden_actions_have_no_probability_and_no_part_in_the_entropy() -> None:
    inputs = [0.3, 5.0, -0.2]
    dist = masked(Discrete(3), inputs, [True, False, True])
    p = math.exp(0.3) / (math.exp(0.3) + math.exp(-0.2))
    actions = jnp.arange(3)
    log_probs = jax.vmap(dist.log_prob)(actions)
    np.testing.assert_allclose(log_probs[jnp.array([0, 2])], [math.log(p), math.log(1 - p)], rtol=1e-5)
    assert float(log_probs[1]) <= MASKED
    assert float(jnp.exp(log_probs[1])) == 0
    np.testing.assert_allclose(dist.entropy(), -(p * math.log(p) + (1 - p) * math.log(1 - p)), rtol=1e-5)
    assert int(dist.mode()) == 0


def test_components_of_a_multi_discrete_are_masked_one_after_another() -> None:
    space, inputs = MultiDiscrete((2, 3)), jnp.array([[0.1, 0.7, 9.0, -0.4, 0.2]])
    dist = masked(space, inputs, [[True, True, False, True, True]])
    first, second = (
        masked(Discrete(2), inputs[:, :2], [[True, True]]),
        masked(Discrete(2), inputs[:, 3:], [[True, True]]),
    )
    np.testing.assert_allclose(dist.entropy(), first.entropy() + second.entropy(), rtol=1e-5)
    expected = first.log_prob(jnp.array([1])) + second.log_prob(jnp.array([0]))
    np.testing.assert_allclose(dist.log_prob(jnp.array([[1, 1]])), expected, rtol=1e-5)
    np.testing.assert_array_equal(dist.mode(), [[1, 2]])


def test_no_forbidden_action_is_drawn_however_likely_it_was() -> None:
    mask = jax.random.bernoulli(jax.random.key(0), 0.4, (10_000, 5)).at[:, 2].set(True)
    inputs = 30 * jax.random.normal(jax.random.key(1), (10_000, 5))
    drawn = masked(Discrete(5), inputs, mask).sample(jax.random.key(2))
    assert bool(jnp.take_along_axis(mask, drawn[:, None], axis=1).all())


def test_gradients_are_finite_and_none_flows_to_a_forbidden_action() -> None:
    mask = jnp.array([[True, False, True], [False, True, False]])

    def loss(inputs: Any) -> Any:
        dist = masked(Discrete(3), inputs, mask)
        ratio = jnp.exp(dist.log_prob(jnp.array([0, 0])) + 1.0)  # the second row's action is forbidden
        return (ratio - dist.entropy()).sum()

    gradient = jax.grad(loss)(jnp.array([[0.5, -3.0, 2.0], [1.0, 100.0, 3.0]]))
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[~mask], 0)
    assert float(jnp.abs(gradient[0]).max()) > 0


def test_where_nothing_is_allowed_everything_is() -> None:
    np.testing.assert_allclose(masked(Discrete(4), [0.0, 1, 2, 3], [False] * 4).entropy(), math.log(4))


def test_a_masked_sequence_is_its_masked_steps() -> None:
    net = ActorCritic(config(Discrete(4)))
    params = net.init(jax.random.key(0))
    obs = jax.random.normal(jax.random.key(1), (5, 2, 3))
    mask = jax.random.bernoulli(jax.random.key(2), 0.5, (5, 2, 4))
    starts = jnp.zeros((5, 2), bool).at[3, 1].set(True)
    state = net.initial_state(2)
    _, inputs, value = net.apply(params, state, MaskedObservation(obs, mask), starts)
    _, plain, same_value = net.apply(params, state, obs, starts)
    np.testing.assert_array_equal(inputs, jnp.where(mask, plain, MASKED))
    np.testing.assert_array_equal(value, same_value)
    prepared = net.prepare(params)
    for t in range(5):
        state, step, _ = net.step(prepared, state, MaskedObservation(obs[t], mask[t]), starts[t])
        np.testing.assert_allclose(step, inputs[t], atol=1e-5)


def test_a_policy_acts_by_masks_and_its_file_says_that_it_needs_them(tmp_path: Path) -> None:
    net = ActorCritic(config(Discrete(4)))
    policy = Policy(net.config, net.init(jax.random.key(0)))
    save_policy(tmp_path / "policy.safetensors", policy)
    loaded = load_policy(tmp_path / "policy.safetensors")
    assert loaded.config == net.config
    obs, starts, state = jnp.ones((6, 3)), jnp.ones(6, bool), loaded.initial_state(6)
    mask = np.eye(4, dtype=np.int8)[[0, 1, 2, 3, 3, 0]]
    for key in (None, jax.random.key(0)):
        action, _ = loaded.act(obs, state, starts, key, action_mask=mask)
        np.testing.assert_array_equal(action, [0, 1, 2, 3, 3, 0])
    with pytest.raises(ValueError, match=r"action_mask: got None, expected \(6, 4\) bool"):
        loaded.act(obs, state, starts)
    with pytest.raises(ValueError, match=r"action_mask: got shape \(6, 3\)"):
        loaded.act(obs, state, starts, action_mask=mask[:, :3])


def test_masks_are_no_part_of_the_weights_and_of_older_files() -> None:
    with_masks = config(Discrete(4))
    require_same_network(with_masks, with_masks.replace(action_mask=False))
    with pytest.raises(ValueError, match="action_mask: got True with Box"):
        config(Box((0.0,), (1.0,)))
    with pytest.raises(ValueError, match=r"expected .* for a Discrete or MultiDiscrete"):
        mask_inputs(Box((0.0,), (1.0,)), jnp.zeros((1, 2)), jnp.ones((1, 2), bool))


def test_a_program_takes_masks_too(tmp_path: Path) -> None:
    net = ActorCritic(config(MultiDiscrete((2, 3))))
    policy = Policy(net.config, net.init(jax.random.key(0)))
    export_stablehlo(tmp_path / "policy.stablehlo", policy)
    program = jax.export.deserialize(bytearray((tmp_path / "policy.stablehlo").read_bytes()))
    rng = np.random.default_rng(0)
    obs, starts = rng.normal(size=(7, 3)).astype(np.float32), np.ones(7, bool)
    mask = np.concatenate([np.eye(2)[rng.integers(2, size=7)], np.eye(3)[rng.integers(3, size=7)]], axis=1)
    state = policy.initial_state(7)
    action, _ = program.call(obs, tuple(jax.tree.leaves(state)), starts, mask.astype(bool))
    np.testing.assert_array_equal(action, np.stack([mask[:, :2].argmax(1), mask[:, 2:].argmax(1)], axis=1))
