"""`lstm_actor` and `lstm_critic`: the policy's own parameters by the LSTM policy's names."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.utils import update_learning_rate

from s5_adapters.sb3 import S5Policy, S5RecurrentPPO

SMALL: dict[str, Any] = {"d_model": 8, "n_layers": 1, "net_arch": [4]}


def policy(**kwargs: Any) -> S5Policy:
    th.manual_seed(0)
    return S5Policy(spaces.Box(-1, 1, (3,)), spaces.Discrete(2), lambda _: 1e-2, **{**SMALL, **kwargs})


@pytest.mark.parametrize("algorithm", [RecurrentPPO, S5RecurrentPPO])
def test_frozen_memories_stay_while_the_heads_learn(algorithm: type[RecurrentPPO]) -> None:
    model = algorithm(
        "S5Policy",
        "CartPole-v1",
        n_steps=32,
        batch_size=32,
        n_epochs=2,
        seed=0,
        policy_kwargs={**SMALL, "critic_memory": "separate"},
    )
    parts = model.policy.lstm_actor, model.policy.lstm_critic
    frozen = [p for part in parts for p in part.requires_grad_(False).parameters()]
    before, head = [p.clone() for p in frozen], model.policy.action_net.weight.clone()
    torso = model.policy.trunk.get_parameter("actor/Dense_0/kernel").clone()
    model.learn(64)
    assert frozen
    assert all(map(th.equal, before, frozen))
    assert not th.equal(head, model.policy.action_net.weight)
    assert not th.equal(torso, model.policy.trunk.get_parameter("actor/Dense_0/kernel"))


def test_they_are_the_policys_own_parameters_under_one_name_each() -> None:
    made = policy(critic_memory="separate")
    names = [name for name, _ in made.named_parameters(remove_duplicate=False)]
    own = {name: p for name, p in made.named_parameters() if name.startswith("trunk.memory/")}
    assert len(names) == len(set(names)) == len(made.state_dict())
    part = dict(made.lstm_actor.named_parameters())
    assert {f"trunk.memory/{name}": id(p) for name, p in part.items()} == {n: id(p) for n, p in own.items()}
    assert [p.shape for p in made.lstm_critic.parameters()] == [p.shape for p in made.lstm_actor.parameters()]
    both = {id(p) for part in (made.lstm_actor, made.lstm_critic) for p in part.parameters()}
    assert len(both) == 2 * len(part)
    rest = [p for p in made.parameters() if id(p) not in both]
    groups = [{"params": made.lstm_actor.parameters(), "lr": 1e-4}, {"params": made.lstm_critic.parameters()}]
    th.optim.Adam([*groups, {"params": rest}])
    size = made.lstm_actor.num_layers, made.lstm_actor.hidden_size
    assert size == made.lstm_hidden_state_shape[::2]


def test_replaced_parameters_are_the_new_ones() -> None:
    made = policy()
    name = next(iter(dict(made.lstm_actor.named_parameters())))
    new = made.trunk._parameters[f"memory/{name}"] = th.nn.Parameter(
        th.zeros_like(made.trunk.get_parameter(f"memory/{name}"))
    )
    assert made.lstm_actor.get_parameter(name) is new


@pytest.mark.parametrize("critic_memory", ["shared", "shared_detached", "none"])
def test_a_critic_without_a_memory_of_its_own_has_no_part(critic_memory: str) -> None:
    assert policy(critic_memory=critic_memory).lstm_critic is None


def test_copies_and_files(tmp_path: Path) -> None:
    made = policy(critic_memory="separate")
    copied = copy.deepcopy(made)
    with th.no_grad():
        for p in copied.lstm_actor.parameters():
            p.zero_()
    assert all(float(p.detach().abs().sum()) == 0 for n, p in copied.named_parameters() if ".memory/" in n)
    assert any(float(p.detach().abs().sum()) > 0 for p in made.lstm_actor.parameters())
    for part in (copy.deepcopy(made.lstm_actor), pickle.loads(pickle.dumps(made.lstm_actor))):
        assert all(map(th.equal, part.parameters(), made.lstm_actor.parameters()))
    made.save(tmp_path / "policy")
    loaded = S5Policy.load(tmp_path / "policy")
    assert all(map(th.equal, loaded.lstm_critic.parameters(), made.lstm_critic.parameters()))
    copied.lstm_actor.load_state_dict(made.lstm_actor.state_dict())
    assert all(map(th.equal, copied.parameters(), made.parameters()))


def test_what_cannot_be_done_with_them_is_told() -> None:
    part = policy().lstm_actor
    with pytest.raises(TypeError, match="runs in JAX"):
        part(th.zeros(1, 8))
    for register in (part.register_forward_hook, part.register_forward_pre_hook):
        with pytest.raises(TypeError, match="calls no hooks"):
            register(lambda *_: None)


def test_the_memorys_dynamics_may_learn_more_slowly(tmp_path: Path) -> None:
    """Adam's first step is the learning rate in every direction, whatever the schedule says it is now."""
    made = policy(critic_memory="separate", lr_scales={}, dynamics_lr_scale=0.1)
    update_learning_rate(made.optimizer, 1e-3)
    before = {name: p.detach().clone() for name, p in made.named_parameters()}
    for p in made.parameters():
        p.grad = th.ones_like(p)
    made.optimizer.step()
    for name, p in made.named_parameters():
        slower = 0.1 if name.rpartition("/")[2] in ("lambda_re", "lambda_im", "log_dt") else 1.0
        th.testing.assert_close(before[name] - p, th.full_like(p, slower * 1e-3), rtol=0.01, atol=0)
    held = [p for group in made.optimizer.param_groups for p in group["params"]]
    assert len(made.optimizer.param_groups[1]["params"]) == 6
    assert {id(p) for p in held} == {id(p) for p in made.parameters()}
    made.save(tmp_path / "policy.pt")
    assert len(S5Policy.load(tmp_path / "policy.pt").optimizer.param_groups) == 2
    with pytest.raises(ValueError, match=r"^dynamics_lr_scale: got 0.1, expected 1 with memory 'gru'$"):
        policy(memory="gru", dynamics_lr_scale=0.1)
