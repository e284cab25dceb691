"""The torch loop of docs/add-a-framework.md acts as it trains, compiles little, saves a policy and learns."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch

from s5_adapters import load_policy

PAGE = Path(__file__).resolve().parents[1] / "docs" / "add-a-framework.md"
LOOP = "for _ in range(100):"


def run_page(updates: int) -> dict[str, Any]:
    """Run every snippet, with fewer updates, and return the names that it leaves."""
    source = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL))
    assert source.count(LOOP) == 1
    source = source.replace(LOOP, f"envs.reset(seed=0)\nfor _ in range({updates}):")
    names: dict[str, Any] = {"__name__": "recipe"}
    exec(compile(source, str(PAGE), "exec", dont_inherit=True), names)
    return names


def test_a_third_framework(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_page(updates=4)
    model = names["model"]
    # Four updates on episodes of four lengths compiled no more than the buckets' shapes.
    assert len({episodes for episodes in names["lengths"]}) == 4
    assert 1 <= len(model.buckets.shapes) <= 3
    # Every parameter was trained.
    torch.manual_seed(0)
    fresh = type(model)(
        names["envs"].single_observation_space,
        names["envs"].single_action_space,
        **{
            name: getattr(model.config, name)
            for name in ("memory", "memory_config", "encoder", "actor_torso", "critic_torso")
        },
    )
    assert fresh.programs is model.programs
    for (name, trained), first in zip(model.named_parameters(), fresh.parameters(), strict=True):
        assert (trained != first).any(), name
    # Acting step by step, training on rows and the saved policy are one network.
    policy = load_policy("cartpole.safetensors")
    rng = np.random.default_rng(0)
    obs = torch.from_numpy(rng.standard_normal((2, 5, 4), np.float32))
    starts = torch.tensor([[True, False, False, True, False], [True, False, False, False, False]])
    state, theirs = model.initial_state(2), policy.initial_state(2)
    with torch.no_grad():
        inputs, values = model.sequence(state, obs, starts)
    for t in range(5):
        state, acted, value = model.step(state, obs[:, t], starts[:, t])
        torch.testing.assert_close(acted, inputs[:, t], atol=2e-5, rtol=0)
        torch.testing.assert_close(value, values[:, t], atol=2e-5, rtol=0)
        logits, _, theirs = policy.evaluate(*jax.tree.map(np.asarray, (obs[:, t], theirs, starts[:, t])))
        np.testing.assert_allclose(acted, logits, atol=2e-5)


@pytest.mark.slow
def test_it_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lengths = run_page(updates=100)["lengths"]
    assert np.mean(lengths[:5]) < 40
    assert np.mean(lengths[-10:]) > 100
