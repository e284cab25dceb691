"""Parts that do not learn, or learn more slowly, in Stable-Baselines3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import update_learning_rate

from s5_adapters.sb3 import S5RecurrentPPO

SMALL: dict[str, Any] = {"d_model": 8, "d_state": 8, "n_layers": 1, "net_arch": [6], "encoder": (7,)}


def make(**policy: Any) -> S5RecurrentPPO:
    env = make_vec_env("CartPole-v1", n_envs=1)
    arguments = {"n_steps": 16, "batch_size": 16, "n_epochs": 1, "seed": 0}
    return S5RecurrentPPO("S5Policy", env, policy_kwargs=SMALL | policy, **arguments)


def test_what_is_frozen_stays_and_the_rest_learns(tmp_path: Path) -> None:
    model = make(freeze=("memory", "encoder"))
    before = {name: p.detach().clone() for name, p in model.policy.named_parameters()}
    model.learn(16)
    for name, p in model.policy.named_parameters():
        is_frozen = name.startswith(("trunk.memory/", "trunk.encoder/"))
        assert p.requires_grad is not is_frozen
        assert th.equal(p, before[name]) is is_frozen, name
    model.save(tmp_path / "model")
    loaded = S5RecurrentPPO.load(tmp_path / "model")
    assert not any(p.requires_grad for p in loaded.policy.lstm_actor.parameters())
    assert loaded.policy.freeze == ("encoder", "memory")


def test_a_part_may_learn_more_slowly() -> None:
    policy = make(lr_scales={"memory": 0.5, "heads": 2.0}, dynamics_lr_scale=0.1).policy
    update_learning_rate(policy.optimizer, 1e-3)
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    for p in policy.parameters():
        p.grad = th.ones_like(p)
    policy.optimizer.step()
    for name, p in policy.named_parameters():
        expected = 1e-3
        if name.startswith("trunk.memory/"):
            is_dynamic = name.rpartition("/")[2] in ("lambda_re", "lambda_im", "log_dt")
            expected *= 0.05 if is_dynamic else 0.5
        elif name.startswith(("action_net", "value_net")):
            expected *= 2
        th.testing.assert_close(before[name] - p, th.full_like(p, expected), rtol=0.01, atol=0)


def test_s5_learns_more_slowly_than_the_rest_unless_something_else_is_said(tmp_path: Path) -> None:
    def rates(model: S5RecurrentPPO) -> tuple[dict[str, float], float]:
        return dict(model.policy.lr_scales), model.policy.dynamics_lr_scale

    model = make()
    assert rates(model) == ({"memory": 0.3}, 0.1)
    assert rates(make(lr_scales={})) == ({}, 0.1)
    assert rates(make(dynamics_lr_scale=1.0)) == ({"memory": 0.3}, 1.0)
    assert rates(make(memory="lru", d_state=8)) == ({}, 1.0)
    model.save(tmp_path / "model")
    assert rates(S5RecurrentPPO.load(tmp_path / "model")) == ({"memory": 0.3}, 0.1)


def test_the_state_of_an_optimizer_with_one_rate_can_be_loaded() -> None:
    """A model that was saved before S5 had rates of its own."""
    old, new = make(lr_scales={}, dynamics_lr_scale=1.0).policy, make(lr_scales={"heads": 2.0}).policy
    for i, p in enumerate(old.parameters()):
        p.grad = th.full_like(p, float(i + 1))
    old.optimizer.step()
    new.optimizer.load_state_dict(old.optimizer.state_dict())
    assert [len(policy.optimizer.param_groups) for policy in (old, new)] == [1, 3]
    for one, other in zip(old.parameters(), new.parameters(), strict=True):
        there, here = old.optimizer.state[one], new.optimizer.state[other]
        assert there.keys() == here.keys()
        assert all(th.equal(there[name], here[name]) for name in there)


def test_adam_steps_all_parameters_in_one_kernel_unless_its_arguments_are_said() -> None:
    assert [group["fused"] for group in make().policy.optimizer.param_groups] == [True] * 3
    assert make().policy.optimizer.param_groups[0]["eps"] == 1e-5
    said = make(optimizer_kwargs={"eps": 1e-3}).policy.optimizer.param_groups[0]
    assert (said["fused"], said["eps"]) == (None, 1e-3)
    assert isinstance(make(optimizer_class=th.optim.SGD).policy.optimizer, th.optim.SGD)


def test_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^freeze\[0\]: got 'memroy', expected one of memory, "):
        make(freeze=("memroy",))


def test_something_has_to_learn() -> None:
    """A part without layers has nothing that could."""
    for parts, layers in (
        (("encoder", "memory", "torsos", "heads"), {}),
        (("encoder", "memory", "heads"), {"net_arch": []}),
    ):
        with pytest.raises(
            ValueError, match=r"^freeze: got encoder, memory, .*heads, nothing is left to learn$"
        ):
            make(freeze=parts, **layers)
    make(freeze=("encoder", "memory", "heads"))
