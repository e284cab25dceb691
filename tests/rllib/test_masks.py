"""Masks in RLlib: an `action_mask` entry of a Dict observation."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from s5_adapters.core.network.masks import MASKED
from s5_adapters.rllib import S5RLModule

pytestmark = [
    pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning"),
    pytest.mark.filterwarnings(r"ignore:.[\w.]+. .*deprecated:DeprecationWarning"),
]

TINY = {"d_model": 8, "d_state": 8, "n_layers": 1, "encoder": [], "actor_torso": [], "critic_torso": []}
SPACE = gym.spaces.Dict(
    {"action_mask": gym.spaces.Box(0.0, 1.0, (4,)), "observations": gym.spaces.Box(-1.0, 1.0, (3,))}
)


def build(observation_space: Any = SPACE, action_space: Any = None) -> Any:
    return RLModuleSpec(
        module_class=S5RLModule,
        observation_space=observation_space,
        action_space=gym.spaces.Discrete(4) if action_space is None else action_space,
        model_config=TINY | {"max_seq_len": 8},
    ).build()


def batch(module: Any, rows: int, steps: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    masks = rng.random((rows, steps, 4)) < 0.5
    masks[..., 0] |= ~masks.any(-1)
    obs = torch.tensor(rng.normal(size=(rows, steps, 3)), dtype=torch.float32)
    state = {name: torch.zeros(rows, len(x)) for name, x in module.get_initial_state().items()}
    return {
        Columns.OBS: {"action_mask": torch.tensor(masks, dtype=torch.float32), "observations": obs},
        Columns.STATE_IN: state,
    }


@pytest.mark.parametrize("steps", [1, 5])
def test_every_forward_gives_forbidden_actions_no_probability(steps: int) -> None:
    module = build()
    given = batch(module, 6, steps)
    masks = given[Columns.OBS]["action_mask"].bool()
    acted = module.forward_exploration(given)[Columns.ACTION_DIST_INPUTS]
    trained = module.forward_train(given)[Columns.ACTION_DIST_INPUTS]
    for inputs in (acted, trained.detach()):
        assert (inputs[~masks] == MASKED).all()
        assert (inputs[masks] > MASKED).all()
    np.testing.assert_allclose(acted, trained.detach(), atol=1e-5)

    dist = module.get_train_action_dist_cls().from_logits(trained)
    entropy = dist.entropy()
    assert torch.isfinite(entropy).all()
    assert (entropy.exp() <= masks.sum(-1) + 1e-3).all()
    entropy.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)
    drawn = module.get_exploration_action_dist_cls().from_logits(acted).sample()
    assert torch.take_along_dim(masks, drawn[..., None].long(), dim=-1).all()


def test_values_need_no_mask_and_padding_is_harmless() -> None:
    module = build()
    given = batch(module, 2, 4)
    values = module.compute_values(given)
    given[Columns.OBS]["action_mask"][:, 2:] = 0  # RLlib fills rows with zeros
    np.testing.assert_array_equal(module.compute_values(given), values)
    inputs = module.forward_train(given)[Columns.ACTION_DIST_INPUTS]
    assert torch.isfinite(inputs).all()


def test_the_policy_says_that_it_needs_masks() -> None:
    policy = build().to_policy()
    assert policy.config.action_mask
    obs, mask = np.zeros((4, 3), np.float32), np.eye(4)
    action, _ = policy.act(obs, policy.initial_state(4), np.ones(4, bool), action_mask=mask)
    assert action.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Dict({**SPACE.spaces, "action_mask": gym.spaces.Box(0.0, 1.0, (5,))}),
        gym.spaces.Dict({**SPACE.spaces, "more": gym.spaces.Box(0.0, 1.0, (5,))}),
    ],
)
def test_another_dict_is_refused(space: Any) -> None:
    with pytest.raises(ValueError, match=r"expected action_mask of shape \(4,\) for Discrete"):
        build(space)
