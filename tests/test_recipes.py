"""The memories of docs/add-a-memory.md, registered from outside: they keep the contract and train."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5_adapters.core import make_memory
from s5_adapters.core.memories import memory as registry
from s5_adapters.purejax import PPOConfig, Trainer
from tests.purejax.helpers import quick_compilation, small_config

PAGE = Path(__file__).resolve().parents[1] / "docs" / "add-a-memory.md"
NAMES = ("averages", "previous")
LENGTH, BATCH, WIDTH = 12, 2, 5


@pytest.fixture(scope="module")
def use() -> Iterator[str]:
    """Run the page's definitions; what it does with them, its last snippet, is for the test."""
    before = dict(registry._REGISTRY)
    *definitions, use = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    exec(compile("\n".join(definitions), str(PAGE), "exec", dont_inherit=True), {"__name__": "recipe"})
    yield use
    registry._REGISTRY.clear()
    registry._REGISTRY.update(before)


@pytest.mark.usefixtures("use")
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_keeps_the_contract(name: str) -> None:
    memory = make_memory(name, d_model=8, n_layers=1)
    params = memory.init(jax.random.key(0), WIDTH)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    x = np.random.default_rng(0).normal(size=(LENGTH, BATCH, WIDTH)).astype(np.float32)
    starts = np.zeros((LENGTH, BATCH), bool)
    starts[5] = True
    apply: Any = jax.jit(memory.apply)
    state, y = apply(params, memory.initial_state(BATCH), x, starts)
    # Packed equals unpacked, and a NaN before a reset does not cross it.
    _, alone = apply(params, memory.initial_state(BATCH), x[5:], starts[5:] & False)
    np.testing.assert_allclose(y[5:], alone, rtol=2e-5, atol=2e-5)
    dirty = x.copy()
    dirty[4] = np.nan
    np.testing.assert_array_equal(apply(params, memory.initial_state(BATCH), dirty, starts)[1][5:], y[5:])
    # Steps equal the sequence.
    carried, prepared, step = memory.initial_state(BATCH), memory.prepare(params), jax.jit(memory.step)
    for t in range(LENGTH):
        carried, y_t = step(prepared, carried, x[t], starts[t])
        np.testing.assert_allclose(y_t, y[t], rtol=2e-5, atol=2e-5)
    for ours, theirs in zip(jax.tree.leaves(carried), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


def test_a_recipe_trains_by_its_name(use: str) -> None:
    small = small_config(memory="feedforward", memory_config={"d_model": 8, "n_layers": 1}, total_steps=64)
    sizes = {field.name: getattr(small, field.name) for field in dataclasses.fields(small)}
    shrunk: list[PPOConfig] = []

    def shrink(config: PPOConfig) -> PPOConfig:
        shrunk.append(PPOConfig(**sizes | {"memory": config.memory}))
        return shrunk[-1]

    names: dict[str, Any] = {"shrink": shrink}
    source = use.replace("Trainer(config)", "Trainer(shrink(config))")
    with quick_compilation():
        exec(compile(source, str(PAGE), "exec", dont_inherit=True), names)
        fresh = Trainer(shrunk[0])
    assert shrunk[0].memory == "averages"
    moved = jax.tree.map(
        lambda one, other: float(jnp.abs(one - other).max()),
        names["trainer"].state.params["trunk"]["memory"],
        fresh.state.params["trunk"]["memory"],
    )
    assert all(change > 0 for change in jax.tree.leaves(moved))
