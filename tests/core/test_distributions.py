"""Action distributions against closed forms."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5_adapters.core import Box, Discrete, MultiDiscrete, distribution

BOX = Box(low=(-1.0, -2.0), high=(1.0, math.inf))


def logits(*shape: int, seed: int = 0) -> np.ndarray:
    return (2 * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)


def test_discrete_closed_forms() -> None:
    inputs = logits(3, 4, 5)
    dist, probs = distribution(Discrete(5), jnp.asarray(inputs)), softmax(inputs)
    for action in range(5):
        actions = jnp.full((3, 4), action)
        np.testing.assert_allclose(dist.log_prob(actions), np.log(probs[..., action]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dist.entropy(), -(probs * np.log(probs)).sum(-1), rtol=1e-5)
    np.testing.assert_array_equal(dist.mode(), inputs.argmax(-1))
    assert dist.mode().dtype == dist.sample(jax.random.key(0)).dtype == jnp.int32


def test_discrete_samples_follow_the_probabilities() -> None:
    inputs = logits(4)
    many = distribution(Discrete(4), jnp.broadcast_to(inputs, (40_000, 4))).sample(jax.random.key(1))
    frequency = np.bincount(np.asarray(many), minlength=4) / 40_000
    np.testing.assert_allclose(frequency, softmax(inputs), atol=4 * math.sqrt(0.25 / 40_000))


def test_discrete_with_an_impossible_action() -> None:
    inputs = jnp.array([0.0, -1e9, 0.0])

    def entropy(inputs: Any) -> Any:
        return distribution(Discrete(3), inputs).entropy()

    np.testing.assert_allclose(entropy(inputs), math.log(2), rtol=1e-6)
    assert np.isfinite(jax.grad(entropy)(inputs)).all()
    samples = distribution(Discrete(3), jnp.broadcast_to(inputs, (1000, 3))).sample(jax.random.key(0))
    assert set(np.asarray(samples).tolist()) == {0, 2}


def test_a_single_action_has_no_entropy() -> None:
    dist = distribution(Discrete(1), jnp.array([[3.0]]))
    assert float(dist.entropy()[0]) == 0
    assert float(dist.log_prob(dist.sample(jax.random.key(0)))[0]) == 0


def test_multi_discrete_is_a_product_of_discretes() -> None:
    nvec, inputs = (2, 3, 4), logits(6, 9)
    dist = distribution(MultiDiscrete(nvec), jnp.asarray(inputs))
    parts = [
        distribution(Discrete(n), p) for n, p in zip(nvec, np.split(inputs, [2, 5], axis=-1), strict=True)
    ]
    action = dist.sample(jax.random.key(0))
    assert action.shape == (6, 3)
    assert action.dtype == jnp.int32
    assert (np.asarray(action) < nvec).all()
    expected = sum(part.log_prob(action[:, i]) for i, part in enumerate(parts))
    np.testing.assert_allclose(dist.log_prob(action), expected, rtol=1e-6)
    np.testing.assert_allclose(dist.entropy(), sum(part.entropy() for part in parts), rtol=1e-6)
    np.testing.assert_array_equal(dist.mode(), np.stack([part.mode() for part in parts], axis=-1))


def test_components_of_a_multi_discrete_are_drawn_independently() -> None:
    action = distribution(MultiDiscrete((2, 2)), jnp.zeros((20_000, 4))).sample(jax.random.key(2))
    agree = float(np.mean(action[:, 0] == action[:, 1]))
    assert agree == pytest.approx(0.5, abs=0.02)


def test_gaussian_closed_forms() -> None:
    rng = np.random.default_rng(3)
    mean, log_std, action = (rng.normal(size=(7, 2)) for _ in range(3))
    dist = distribution(BOX, jnp.asarray(np.concatenate([mean, log_std], axis=-1), jnp.float32))
    std = np.exp(log_std)
    log_prob = (-(((action - mean) / std) ** 2) / 2 - np.log(std) - np.log(2 * np.pi) / 2).sum(-1)
    np.testing.assert_allclose(dist.log_prob(jnp.asarray(action, jnp.float32)), log_prob, rtol=1e-4)
    np.testing.assert_allclose(dist.entropy(), (0.5 + 0.5 * np.log(2 * np.pi) + log_std).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(dist.mode(), mean, rtol=1e-6)


def test_gaussian_samples_have_its_mean_and_spread() -> None:
    inputs = jnp.array([0.3, -2.0, math.log(0.5), math.log(2.0)])
    samples = distribution(BOX, jnp.broadcast_to(inputs, (40_000, 4))).sample(jax.random.key(4))
    assert samples.dtype == jnp.float32
    np.testing.assert_allclose(samples.mean(0), [0.3, -2.0], atol=0.05)
    np.testing.assert_allclose(samples.std(0), [0.5, 2.0], rtol=0.03)
    assert abs(np.corrcoef(samples.T)[0, 1]) < 0.03


@pytest.mark.parametrize(("action", "width"), [(Discrete(3), 3), (MultiDiscrete((2, 3)), 5), (BOX, 4)])
def test_a_distribution_passes_through_jit_and_vmap(action: Any, width: int) -> None:
    inputs = jnp.asarray(logits(8, width))
    dist = jax.jit(lambda x: distribution(action, x))(inputs)
    draw = jax.random.key(0)
    sample = dist.sample(draw)
    np.testing.assert_array_equal(sample, distribution(action, inputs).sample(draw))
    by_row = jax.vmap(lambda x, a: distribution(action, x).log_prob(a))(inputs, sample)
    np.testing.assert_allclose(by_row, dist.log_prob(sample), rtol=1e-6)
    assert dist.log_prob(sample).shape == dist.entropy().shape == (8,)


def test_the_score_has_mean_zero() -> None:
    # E[grad log p] = 0: holds only if sample, log_prob and the gradient belong to one distribution.
    inputs = jnp.array([0.5, -1.0, 0.2])
    actions = distribution(Discrete(3), jnp.broadcast_to(inputs, (20_000, 3))).sample(jax.random.key(5))

    def score(inputs: Any) -> Any:
        return distribution(Discrete(3), jnp.broadcast_to(inputs, (20_000, 3))).log_prob(actions).mean()

    np.testing.assert_allclose(jax.grad(score)(inputs), 0, atol=0.015)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: Discrete(0), "Discrete.n: got 0"),
        (lambda: Discrete(2.0), "Discrete.n: got 2.0"),  # type: ignore[arg-type]
        (lambda: Discrete(True), "Discrete.n: got True"),
        (lambda: MultiDiscrete(()), "MultiDiscrete.nvec"),
        (lambda: MultiDiscrete((2, 0)), r"MultiDiscrete.nvec\[1\]: got 0"),
        (lambda: Box((), ()), "Box"),
        (lambda: Box((0.0,), (0.0,)), "Box"),
        (lambda: Box((0.0, 0.0), (1.0,)), "Box"),
        (lambda: Box((float("nan"),), (1.0,)), "Box"),
    ],
)
def test_a_bad_space_is_refused(make: Any, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        make()


def test_inputs_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"inputs: got shape \(2, 3\), expected \(\.\.\., 4\)"):
        distribution(Discrete(4), jnp.zeros((2, 3)))


def test_spaces_are_equal_and_hashable_by_value() -> None:
    assert {Discrete(3), Discrete(3), MultiDiscrete((2, 3)), MultiDiscrete([2, 3])} == {  # type: ignore[arg-type]
        Discrete(3),
        MultiDiscrete((2, 3)),
    }
    assert Box((0,), (1,)) == Box((0.0,), (1.0,))
