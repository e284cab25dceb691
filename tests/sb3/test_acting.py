"""Heads computed with the trunk act as SB3's own modules and distributions do: `s5_adapters.sb3.acting`."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.distributions import Distribution
from torch import nn

from s5_adapters.sb3 import S5Policy, unchanged
from tests.marks import slow

ACTIONS = {
    "discrete": spaces.Discrete(5),
    "multi-discrete": spaces.MultiDiscrete([2, 4, 3]),
    "multi-binary": spaces.MultiBinary(3),
    "box": spaces.Box(-1, 1, (3,)),
    "a box of two axes": spaces.Box(-1, 1, (2, 2)),
}
BATCH = 6


def policy(action_space: spaces.Space, cls: type[S5Policy] = S5Policy, **kwargs: Any) -> S5Policy:
    th.manual_seed(0)
    settings = {"d_model": 8, "n_layers": 2, "net_arch": [6], "critic_memory": "separate", **kwargs}
    made = cls(spaces.Box(-1, 1, (3,)), action_space, lambda _: 1e-3, **settings)
    with th.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * th.randn_like(parameter))
    made.set_training_mode(False)
    return made


def inputs(made: S5Policy, batch: int = BATCH) -> tuple[th.Tensor, RNNStates, th.Tensor]:
    layers, _, width = made.lstm_hidden_state_shape
    parts = [th.randn(layers, batch, width) for _ in range(4)]
    starts = (th.arange(batch) % 3 == 0).float()
    return th.rand(batch, 3), RNNStates(tuple(parts[:2]), tuple(parts[2:])), starts


def flat(acted: tuple[Any, ...]) -> list[th.Tensor]:
    actions, values, log_prob, states = acted
    return [actions, values, log_prob, *states.pi, *states.vf]


def both_ways(
    made: S5Policy, given: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch, **kwargs: Any
) -> tuple[list[th.Tensor], list[th.Tensor]]:
    """`forward` by the program with heads, then by SB3's modules, from the same seed."""
    assert unchanged.head_parameters(made)
    th.manual_seed(7)
    with th.no_grad():
        by_jax = flat(made.forward(*given, **kwargs))
    with monkeypatch.context() as patch, th.no_grad():
        patch.setattr(made, "_act_with_heads", lambda *args, **kwargs: None)
        th.manual_seed(7)
        return by_jax, flat(made.forward(*given, **kwargs))


@pytest.mark.parametrize("deterministic", [False, *slow(True)])
@pytest.mark.parametrize("name", ACTIONS)
def test_the_same_seed_gives_what_sb3s_heads_give(
    name: str, deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = policy(ACTIONS[name])
    for _ in range(5):
        given = inputs(made)
        ours, theirs = both_ways(made, given, monkeypatch, deterministic=deterministic)
        for mine, other in zip(ours, theirs, strict=True):
            assert (mine.shape, mine.dtype) == (other.shape, other.dtype)
            th.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)
        actions = ours[0] if ours[0].dim() == 1 else ours[0].flatten(1)  # as rollout buffers keep them
        with th.no_grad():
            values, log_prob, _ = made.evaluate_actions(given[0], actions, *given[1:])
        th.testing.assert_close(values, ours[1], rtol=1e-5, atol=1e-5)
        th.testing.assert_close(log_prob, ours[2], rtol=1e-5, atol=1e-5)


def test_actions_are_drawn_with_the_distributions_chances() -> None:
    made = policy(spaces.Discrete(4))
    obs, states, starts = inputs(made, batch=1)
    with th.no_grad():
        chances = made.get_distribution(obs, states.pi, starts)[0].distribution.probs[0]
        drawn = [int(made.forward(obs, states, starts)[0]) for _ in range(4000)]
    counts = np.bincount(drawn, minlength=4)
    expected = 4000 * chances.numpy()
    assert ((counts - expected) ** 2 / expected).sum() < 16.3  # chi square, 3 degrees of freedom, p = 0.001


def test_values_are_those_of_the_value_head(monkeypatch: pytest.MonkeyPatch) -> None:
    made = policy(spaces.Discrete(4))
    obs, states, starts = inputs(made)
    random_state = th.get_rng_state()
    with th.no_grad():
        by_jax = made.predict_values(obs, states.vf, starts)
        assert th.equal(th.get_rng_state(), random_state)  # nothing is drawn for a value
        monkeypatch.setattr(made, "_act_with_heads", lambda *args, **kwargs: None)
        th.testing.assert_close(by_jax, made.predict_values(obs, states.vf, starts), rtol=1e-5, atol=1e-6)


def test_a_change_of_a_head_is_seen_at_once() -> None:
    made = policy(spaces.Box(-1, 1, (2,)))
    given = inputs(made)
    with th.no_grad():
        actions, values, _, _ = made.forward(*given, deterministic=True)
        made.action_net.bias.add_(1.0)
        made.value_net.bias.sub_(2.0)
        made.log_std.fill_(-20.0)
        moved, lower, _, _ = made.forward(*given)
        th.testing.assert_close(moved, actions + 1.0)
        th.testing.assert_close(lower, values - 2.0)
        made.action_net = nn.Linear(6, 2)
        made.action_net.weight.zero_()
        made.action_net.bias.fill_(0.5)
        th.testing.assert_close(made.forward(*given, deterministic=True)[0], th.full((BATCH, 2), 0.5))


class Sharper(S5Policy):
    """A user's: halves the temperature."""

    def _get_action_dist_from_latent(self, latent_pi: th.Tensor) -> Distribution:
        return self.action_dist.proba_distribution(action_logits=2.0 * self.action_net(latent_pi))


class Doubled(nn.Linear):
    """A user's head."""

    def forward(self, x: th.Tensor) -> th.Tensor:
        return 2.0 * super().forward(x)


def test_what_a_user_put_in_a_heads_place_is_called() -> None:
    space = spaces.Discrete(4)
    assert not unchanged.head_parameters(policy(space, Sharper))
    assert not unchanged.head_parameters(policy(space, activation_fn=nn.SiLU, net_arch=[4]))
    assert not unchanged.head_parameters(policy(spaces.Box(-1, 1, (2,)), use_sde=True))
    custom = policy(space)
    custom.value_net = Doubled(6, 1)
    given = inputs(custom)
    with th.no_grad():
        values = custom.forward(*given)[1]
        th.testing.assert_close(values, custom.evaluate_actions(given[0], th.zeros(BATCH), *given[1:])[0])
    custom.value_net = nn.Linear(6, 1, bias=False)
    with th.no_grad():
        assert custom.forward(*given)[1].shape == (BATCH, 1)
    hooked, seen = policy(space), []
    handle = hooked.action_net.register_forward_hook(lambda *args: seen.append(1))
    with th.no_grad():
        hooked.forward(*given)
        assert seen == [1]
        handle.remove()
        hooked.forward(*given)
    assert seen == [1]


@pytest.mark.parametrize("name", ACTIONS)
def test_a_parameter_that_is_not_finite_is_sb3s_error(name: str) -> None:
    made = policy(ACTIONS[name])
    with th.no_grad():
        made.action_net.weight.fill_(float("nan"))
        with pytest.raises(ValueError, match="to satisfy the constraint"):
            made.forward(*inputs(made))


def test_predict_sets_every_module_to_evaluation() -> None:
    """SB3 sets the mode at every call; a module that a user, or torch, set apart must not stay so."""
    made = policy(spaces.Discrete(3))
    inner = made.mlp_extractor
    for part in (made, inner, next(inner.children())):
        part.train()
        made.predict(np.zeros((1, 3), np.float32))
        assert not any(module.training for module in made.modules())
    made.train()
    assert all(module.training for module in made.modules())
