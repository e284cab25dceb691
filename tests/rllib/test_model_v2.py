"""The old stack's custom model: found by its name, and the same network as the RLModule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from ray.rllib.core.columns import Columns
from ray.rllib.models.catalog import MODEL_DEFAULTS, ModelCatalog
from ray.tune.registry import RLLIB_MODEL, _global_registry

from s5_adapters.rllib import S5RLModule
from s5_adapters.rllib._model_v2 import S5Model

NETWORK = {"d_model": 8, "d_state": 8, "encoder": [8], "actor_torso": [8], "critic_torso": [8]}
VECTOR = spaces.Box(-1.0, 1.0, (3,))


@pytest.fixture(autouse=True)
def _registered_again() -> None:
    """Ray forgets every name at `ray.shutdown()`, which tests of other files call in the same process."""
    if not _global_registry.contains(RLLIB_MODEL, "s5"):
        ModelCatalog.register_custom_model("s5", S5Model)


def make(action: spaces.Space | None = None, num_outputs: int | None = None, **network: Any) -> Any:
    action = spaces.Discrete(4) if action is None else action
    config = MODEL_DEFAULTS | {"custom_model": "s5", "custom_model_config": NETWORK | network}
    if num_outputs is None:
        _, num_outputs = ModelCatalog.get_action_dist(action, config, framework="torch")
    return ModelCatalog.get_model_v2(VECTOR, action, num_outputs, config, framework="torch")


def test_rows_are_those_of_the_rl_module_in_training_and_step_by_step() -> None:
    model = make()
    module = S5RLModule(
        observation_space=VECTOR,
        action_space=spaces.Discrete(4),
        inference_only=False,
        model_config=NETWORK | {"max_seq_len": 6},
    )
    module.network.load_state_dict(model.network.state_dict())
    obs = torch.randn(4, 6, 3)
    (initial,) = model.get_initial_state()
    state = initial[None].repeat(4, 1)
    expected = module.forward_train({Columns.OBS: obs, Columns.STATE_IN: {"memory": state}})

    flat = {"obs": obs.reshape(24, 3), "obs_flat": obs.reshape(24, 3)}
    logits, _ = model(flat, [state], torch.full((4,), 6))
    values = model.value_function()
    assert (logits.shape, values.shape) == ((24, 4), (24,))
    torch.testing.assert_close(logits, expected[Columns.ACTION_DIST_INPUTS].reshape(24, 4), atol=2e-6, rtol=0)
    torch.testing.assert_close(values, expected[Columns.EMBEDDINGS].reshape(24), atol=2e-6, rtol=0)
    (logits.square().sum() + values.square().sum()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())

    with torch.no_grad():
        for t in range(6):
            step, (state,) = model({"obs": obs[:, t], "obs_flat": obs[:, t]}, [state], torch.ones(4))
            row = expected[Columns.ACTION_DIST_INPUTS][:, t]
            torch.testing.assert_close(step, row, atol=2e-6, rtol=0)
            now = expected[Columns.EMBEDDINGS][:, t]
            torch.testing.assert_close(model.value_function(), now, atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("action", "width"),
    [(spaces.MultiDiscrete([2, 3]), 5), (spaces.Box(-1.0, 1.0, (2,)), 4)],
)
def test_action_spaces(action: spaces.Space, width: int) -> None:
    model = make(action)
    with torch.no_grad():
        obs = torch.randn(2, 3)
        logits, state = model(
            {"obs": obs, "obs_flat": obs}, [torch.zeros(2, len(model.get_initial_state()[0]))], torch.ones(2)
        )
    assert logits.shape == (2, width)
    assert len(state) == 1


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="model_config: got 'd_modl', expected some of d_model"):
        make(d_modl=3)
    with pytest.raises(ValueError, match="custom_model_config: got 'max_seq_len', which the old API stack"):
        make(max_seq_len=4)
    with pytest.raises(ValueError, match="num_outputs: got 2, expected 4"):
        make(spaces.Box(-1.0, 1.0, (2,)), num_outputs=2)
    with pytest.raises(RuntimeError, match="forward"):
        make().value_function()


def test_a_memory_without_state_needs_none() -> None:
    config = {"memory": "feedforward", "d_model": 8}
    model = ModelCatalog.get_model_v2(
        VECTOR,
        spaces.Discrete(4),
        4,
        MODEL_DEFAULTS | {"custom_model": "s5", "custom_model_config": config},
        framework="torch",
    )
    assert model.get_initial_state() == []
    obs = torch.from_numpy(np.ones((5, 3), np.float32))
    logits, state = model({"obs": obs, "obs_flat": obs}, [], None)
    assert (logits.shape, state) == ((5, 4), [])
