"""S5RLModule and the portable policy: start from one, become one, and refuse what does not fit."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from ray.rllib.core.rl_module.rl_module import RLModule

from s5_adapters.core import Box, Discrete, MultiDiscrete
from s5_adapters.core.files.format1 import name_in_format_1
from s5_adapters.core.files.weights import save_policy
from s5_adapters.rllib import S5PPOConfig
from s5_adapters.rllib._module import _warn_of_rescaling
from s5_adapters.rllib._network import as_module
from tests.portable import assert_agree, core_outputs, in_rllib, make_policy, observe, rllib_outputs

BOX = Box((-1.0, -2.0), (1.0, 2.0))


@pytest.mark.parametrize(
    "changes",
    [
        {"action": MultiDiscrete((2, 3)), "critic_memory": "separate", "encoder": (), "statistics": True},
        {"memory": "feedforward", "memory_config": {"d_model": 8}, "action": BOX, "critic_memory": "none"},
        {"obs_shape": (36, 36, 2), "cnn_features": 6, "encoder": (), "statistics": True},
    ],
    ids=["separate", "feedforward", "image"],
)
def test_it_acts_as_the_weights_do_and_gives_them_back(changes: dict[str, Any]) -> None:
    policy = make_policy(**changes)
    module = in_rllib(policy, policy.config)
    obs, starts = observe(policy.config, 12, 2)
    assert_agree(policy, core_outputs(policy, obs, starts), rllib_outputs(module, obs, starts))
    back = module.to_policy()
    assert back.config == policy.config
    jax.tree.map(np.testing.assert_array_equal, back.params, policy.params)
    assert back.obs_statistics is policy.obs_statistics


@pytest.mark.parametrize(
    ("model_config", "message"),
    [
        ({"d_model": 16}, r"memory_config\['d_model'\] 8, expected 16"),
        ({"memory": "gru", "d_model": 8}, "memory 's5', expected 'gru'"),
        ({"encoder": []}, r"encoder \(6,\), expected \(\)"),
        ({"weights": 7}, "weights: got 7, expected a policy or the name of its file"),
        ({"weights": "nowhere.safetensors"}, "weights: nowhere.safetensors: No such file"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_line(model_config: dict[str, Any], message: str) -> None:
    policy = make_policy()
    with pytest.raises(ValueError, match=message) as caught:
        in_rllib(policy, policy.config, **model_config)
    assert "\n" not in str(caught.value)


def test_weights_for_other_spaces_are_refused() -> None:
    with pytest.raises(ValueError, match=r"obs_shape \(3,\), expected \(2,\)"):
        in_rllib(make_policy(), make_policy(obs_shape=(2,)).config)
    with pytest.raises(ValueError, match=r"action Discrete\(n=4\), expected Discrete\(n=5\)"):
        in_rllib(make_policy(), make_policy(action=Discrete(5)).config)


def test_a_checkpoint_needs_no_other_file(tmp_path: Path) -> None:
    policy = make_policy(statistics=True)
    save_policy(tmp_path / "policy.safetensors", policy)
    module = in_rllib(str(tmp_path / "policy.safetensors"), policy.config)
    module.save_to_path(tmp_path / "module")
    (tmp_path / "policy.safetensors").unlink()
    again = RLModule.from_checkpoint(tmp_path / "module")
    obs, starts = observe(policy.config, 5, 2)
    assert_agree(policy, rllib_outputs(module, obs, starts), rllib_outputs(again, obs, starts), atol=0)
    assert again.to_policy().obs_statistics.samples == 77.0


FORMAT_1 = [
    "actor/Dense_0/bias",
    "actor/Dense_0/kernel",
    "actor/MLP_0/Dense_0/bias",
    "actor/MLP_0/Dense_0/kernel",
    "critic/Dense_0/bias",
    "critic/Dense_0/kernel",
    "critic/MLP_0/Dense_0/bias",
    "critic/MLP_0/Dense_0/kernel",
    "critic_memory/bias",
    "critic_memory/kernel",
    "encoder/MLP_0/Dense_0/bias",
    "encoder/MLP_0/Dense_0/kernel",
    "log_std",
    "memory/bias",
    "memory/kernel",
]
"""A network's parameters in the order in which torch had them."""


def test_a_state_of_format_1_meets_its_parameters_and_their_optimisers() -> None:
    """Torch finds parameters by name, and what an optimiser keeps of them by their order."""
    network = as_module(
        make_policy(
            action=Box((-1.0,), (1.0,)),
            memory="feedforward",
            memory_config={"d_model": 6, "n_layers": 1},
            critic_memory="separate",
        ).params
    )
    values = {name_in_format_1(name): leaf.detach().clone() for name, leaf in network.named_parameters()}
    assert list(values) == FORMAT_1
    with torch.no_grad():
        for leaf in network.parameters():
            leaf.zero_()
    network.load_state_dict(values)
    for name, leaf in network.named_parameters():
        assert torch.equal(leaf, values[name_in_format_1(name)])


def test_the_module_warns_where_actions_may_be_rescaled() -> None:
    bounded = make_policy(action=BOX)
    with pytest.warns(UserWarning, match="normalize_actions=False"):
        in_rllib(bounded, bounded.config, actions_in_env_units=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _warn_of_rescaling(bounded.config, {"actions_in_env_units": True})
        _warn_of_rescaling(make_policy().config, {})
        _warn_of_rescaling(make_policy(action=Box((-np.inf,), (np.inf,))).config, {})


def test_the_config_tells_the_module() -> None:
    config = S5PPOConfig().rl_module(model_config={"d_model": 8})
    assert config.model_config["actions_in_env_units"] is True
    assert config.environment("Pendulum-v1").model_config["actions_in_env_units"] is True
    assert config.environment(normalize_actions=True).model_config["actions_in_env_units"] is False
    unclipped = S5PPOConfig().environment(clip_actions=False)
    assert unclipped.rl_module(model_config={}).model_config["actions_in_env_units"] is False
