"""Parts that do not learn, or learn more slowly, in the trainer."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5_adapters.core.network.parts import PARTS, part_of
from s5_adapters.purejax import A2CConfig, PPOConfig
from s5_adapters.purejax.problem import build_problem
from tests.purejax.helpers import small_config


def moved(config: Any) -> dict[str, float]:
    """How far one gradient step moves each part, at most, where every gradient is 1."""
    problem = build_problem(config)
    params = problem.net.init(jax.random.key(0))
    ones = jax.tree.map(jnp.ones_like, params)
    step = jax.jit(lambda params: config.descend(params, config.make_optimizer().init(params), ones, 1e-3)[0])
    far = jax.tree.map(lambda one, other: float(jnp.abs(one - other).max()), step(params), params)
    distances = dict.fromkeys(PARTS, 0.0)
    for path, distance in jax.tree_util.tree_leaves_with_path(far):
        part = part_of(jax.tree_util.keystr(path, simple=True, separator="/"))
        distances[part] = max(distances[part], distance)
    return distances


def test_what_is_frozen_stays_and_the_rest_learns() -> None:
    layers = {"actor_torso": (8,), "critic_torso": (8,), "critic_memory": "separate"}
    distances = moved(small_config(freeze=["memory", "encoder"], **layers))
    assert distances["memory"] == distances["encoder"] == 0
    assert min(distances["heads"], distances["torsos"]) > 0


def test_what_is_frozen_has_no_part_in_the_clipped_norm() -> None:
    config = small_config(freeze=["memory", "encoder"], optimizer="rmsprop", adam_eps=1e-30)
    problem = build_problem(config)
    params = problem.net.init(jax.random.key(0))
    large = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.full_like(x, 1e-9 if "heads" in jax.tree_util.keystr(path) else 1e9), params
    )
    start = config.make_optimizer().init(params)
    _, state = jax.jit(lambda grads: config.descend(params, start, grads, jnp.float32(1e-3)))(large)
    squares = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert max(float(leaf.max()) for leaf in squares) == pytest.approx(0.01 * 1e-18)  # nothing was clipped


def test_a_part_may_learn_more_slowly() -> None:
    """Adam's first step is the learning rate in every direction."""
    scaled = moved(small_config(lr_scales={"memory": 0.1}))
    np.testing.assert_allclose(scaled["memory"], 1e-4, rtol=0.02)
    np.testing.assert_allclose(scaled["heads"], 1e-3, rtol=0.02)


def test_both_are_part_of_the_configuration() -> None:
    config = A2CConfig(freeze=["heads", "memory"], lr_scales={"encoder": 0.5})
    assert config.freeze == ("memory", "heads")
    assert A2CConfig.from_dict(config.to_dict()) == config
    assert hash(A2CConfig.from_dict(config.to_dict())) == hash(config)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("freeze", ["memroy"], r"^freeze\[0\]: got 'memroy', expected one of memory, "),
        ("freeze", "memory", r"^freeze: got 'memory', expected a list of encoder, memory, torsos, heads$"),
        ("lr_scales", {"memroy": 1}, r"^lr_scales: got 'memroy', expected one of memory, "),
        ("lr_scales", {"memory": 0}, r"^lr_scales\['memory'\]: got 0, expected a finite number > 0$"),
    ],
)
def test_another_name_is_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PPOConfig(**{field: value})


@pytest.mark.parametrize("layers", [{}, {"encoder": ()}])
def test_something_has_to_learn(layers: Any) -> None:
    """A part without layers has nothing that could."""
    frozen = [part for part in PARTS if part != "torsos"]  # of which this network has none
    if layers:
        frozen.remove("encoder")
    with pytest.raises(ValueError, match=r"^freeze: got [^\n]*memory, heads, nothing is left to learn$"):
        build_problem(small_config(freeze=frozen, **layers))
    build_problem(small_config(freeze=frozen[:-1], **layers))
