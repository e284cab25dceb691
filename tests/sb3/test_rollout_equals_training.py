"""What a user puts between memory and action acts in rollouts and predictions as in training."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.distributions import CategoricalDistribution
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils import parametrizations, weight_norm

from s5_adapters.sb3 import S5Policy
from s5_adapters.sb3.unchanged import head_parameters

OBS = spaces.Box(-1, 1, (3,))
SPACES = {"discrete": spaces.Discrete(4), "box": spaces.Box(-1, 1, (2,))}
BATCH = 4


def policy(cls: type[S5Policy] = S5Policy, name: str = "discrete", **kwargs: Any) -> S5Policy:
    th.manual_seed(0)
    made = cls(OBS, SPACES[name], lambda _: 1e-3, **{"d_model": 8, "n_layers": 1, "net_arch": [], **kwargs})
    with th.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * th.randn_like(parameter))
    made.set_training_mode(False)
    return made


def inputs(made: S5Policy) -> tuple[th.Tensor, RNNStates, th.Tensor]:
    layers, _, width = made.lstm_hidden_state_shape
    pair = th.full((layers, BATCH, width), 0.3), th.full((layers, BATCH, width), -0.2)
    return th.linspace(-1, 1, BATCH * 3).reshape(BATCH, 3), RNNStates(pair, pair), th.zeros(BATCH)


def acts_as_it_trains(made: S5Policy) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
    """One step, after its values, log-probabilities and distribution were found to be those of training."""
    obs, states, starts = inputs(made)
    with th.no_grad():
        actions, values, log_prob, _ = made.forward(obs, states, starts, deterministic=True)
        trained_values, trained_log_prob, _ = made.evaluate_actions(obs, actions, states, starts)
        th.testing.assert_close(values, trained_values, rtol=1e-4, atol=1e-5)
        th.testing.assert_close(log_prob, trained_log_prob, rtol=1e-4, atol=1e-5)
        th.testing.assert_close(values, made.predict_values(obs, states.vf, starts), rtol=1e-4, atol=1e-5)
        predicted = made.get_distribution(obs, states.pi, starts)[0]
        th.testing.assert_close(log_prob, predicted.log_prob(actions), rtol=1e-4, atol=1e-5)
    return actions, values, log_prob


class Net(nn.Module):
    """A user's network between memory and heads."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.latent_dim_pi = self.latent_dim_vf = width
        self.policy_net = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))
        self.value_net = nn.Sequential(nn.Linear(width, width), nn.SiLU())

    def forward_actor(self, x: th.Tensor) -> th.Tensor:
        return self.policy_net(x)

    def forward_critic(self, x: th.Tensor) -> th.Tensor:
        return self.value_net(x)


class After(S5Policy):
    """Puts a network after `net_arch`'s layers."""

    def _build_mlp_extractor(self) -> None:
        super()._build_mlp_extractor()
        self.mlp_extractor = Net(self.mlp_extractor.latent_dim_pi)


class Instead(S5Policy):
    """Puts a network in their place."""

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = Net(self.lstm_output_dim)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("cls", [After, Instead])
def test_a_network_of_ones_own(cls: type[S5Policy], name: str) -> None:
    made = policy(cls, name, net_arch=[6])
    assert made._trunk.core.latent_widths == ((6, 6) if cls is After else (8, 8))
    held = {id(p) for group in made.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in made.parameters()}
    actions, values, log_prob = acts_as_it_trains(made)
    with th.no_grad():
        made.mlp_extractor.policy_net[0].weight.mul_(-1)
        made.mlp_extractor.value_net[0].weight.mul_(-1)
    other_actions, others, other_log_prob = acts_as_it_trains(made)
    assert not th.allclose(values, others)
    before, after = (actions, other_actions) if name == "box" else (log_prob, other_log_prob)
    assert not th.allclose(before, after)  # a Gaussian's log-probability is the same at every mode
    with pytest.raises(ValueError, match="not portable"):
        made.to_policy()


def test_a_network_that_does_not_fit_is_told_when_it_is_made() -> None:
    with pytest.raises(ValueError, match=r"Instead: mlp_extractor.forward_critic .* given, 3 features"):
        policy(Instead, critic_memory="none")  # the critic reads the observation, 3 wide


class Scaled(nn.Module):
    """A parametrization."""

    def forward(self, x: th.Tensor) -> th.Tensor:
        return 2.0 * x


def doubled(*args: Any) -> Any:
    return 2.0 * args[-1]


def on_instance(thing: Any, name: str, change: Callable[[Any], Any]) -> None:
    original = getattr(thing, name)
    setattr(thing, name, lambda *args, **kwargs: change(original(*args, **kwargs)))


CHANGES: dict[str, Callable[[S5Policy], Any]] = {
    "forward hook on the action head": lambda p: p.action_net.register_forward_hook(doubled),
    "forward hook on the value head": lambda p: p.value_net.register_forward_hook(doubled),
    "pre-hook": lambda p: p.value_net.register_forward_pre_hook(lambda _, args: (2.0 * args[0],)),
    "hook on the torso": lambda p: p.mlp_extractor.policy_net.register_forward_hook(doubled),
    "hook on the critic's torso": lambda p: p.mlp_extractor.value_net.register_forward_hook(doubled),
    "hook on the features": lambda p: p.features_extractor.register_forward_hook(doubled),
    "hook within the extractor": lambda p: p.features_extractor.flatten.register_forward_hook(doubled),
    "forward replaced": lambda p: on_instance(p.action_net, "forward", lambda x: 2.0 * x),
    "value head's forward replaced": lambda p: on_instance(p.value_net, "forward", lambda x: 2.0 * x),
    "torso's method replaced": lambda p: on_instance(p.mlp_extractor, "forward_actor", lambda x: 2.0 * x),
    "a layer added": lambda p: p.mlp_extractor.value_net.append(nn.Tanh()),
    "the extractor replaced": lambda p: setattr(p, "mlp_extractor", Net(8)),
    "extract_features replaced": lambda p: on_instance(p, "extract_features", lambda x: 2.0 * x),
    "features forward replaced": lambda p: on_instance(p.features_extractor, "forward", lambda x: 2.0 * x),
    "parametrization": lambda p: nn.utils.parametrize.register_parametrization(
        p.action_net, "weight", Scaled()
    ),
    "spectral norm": lambda p: parametrizations.spectral_norm(p.value_net),
    "log_prob replaced": lambda p: on_instance(p.action_dist, "log_prob", lambda x: 2.0 * x),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", SPACES)
def test_a_change_after_the_first_step(name: str, change: str) -> None:
    made = policy(name=name)
    before = acts_as_it_trains(made)
    CHANGES[change](made)
    made.eval()
    after = acts_as_it_trains(made)
    assert any(not th.allclose(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_the_older_weight_norm() -> None:
    made = policy()
    acts_as_it_trains(made)
    weight_norm(made.action_net)
    with th.no_grad():
        made.action_net.weight_g.mul_(3.0)
    acts_as_it_trains(made)
    assert not head_parameters(made)


@pytest.mark.parametrize("register", [register_module_forward_hook, register_module_forward_pre_hook])
def test_hooks_on_all_modules(register: Callable[..., Any]) -> None:
    made = policy()
    acts_as_it_trains(made)
    seen: list[nn.Module] = []
    handle = register(lambda module, *_: seen.append(module))
    try:
        acts_as_it_trains(made)
    finally:
        handle.remove()
    assert seen.count(made.value_net) == 3
    assert head_parameters(made)


class Offset(CategoricalDistribution):
    """A user's distribution: never draws, always the last."""

    def sample(self) -> th.Tensor:
        return th.full((len(self.distribution.logits),), self.action_dim - 1)


def drawn(made: S5Policy) -> th.Tensor:
    with th.no_grad():
        return made.forward(*inputs(made))[0]


def test_a_distribution_of_ones_own_draws() -> None:
    made = policy()
    drawn(made)
    made.action_dist = Offset(4)
    assert drawn(made).tolist() == [3] * BATCH
    made.action_dist = CategoricalDistribution(4)
    made.action_dist.sample = lambda: th.full((BATCH,), 2)
    assert drawn(made).tolist() == [2] * BATCH
    made.action_dist = CategoricalDistribution(4)
    with mock.patch.object(CategoricalDistribution, "get_actions", return_value=th.full((BATCH,), 1)):
        assert drawn(made).tolist() == [1] * BATCH
    assert head_parameters(made)
    made._get_action_dist_from_latent = lambda _: Offset(4).proba_distribution(th.zeros(BATCH, 4))
    assert drawn(made).tolist() == [3] * BATCH


class Bounded(S5Policy):
    """Bounds its Gaussian's width by a property."""

    @property
    def log_std(self) -> th.Tensor:
        return self._parameters.get("log_std").clamp(max=-1.0)


def test_a_log_std_that_is_computed() -> None:
    made = policy(Bounded, "box")
    acts_as_it_trains(made)
    _, _, log_prob = acts_as_it_trains(made)
    plain = policy(name="box")
    assert not th.allclose(log_prob, acts_as_it_trains(plain)[2])


class Preprocessed(S5Policy):
    """Overrides `extract_features`, in the simplest way."""

    def extract_features(self, obs: th.Tensor) -> th.Tensor:
        return super().extract_features(3.0 * obs)


@pytest.mark.parametrize("shared", [True, False])
def test_extract_features_is_called_everywhere(shared: bool) -> None:
    made = policy(Preprocessed, share_features_extractor=shared)
    plain = policy(share_features_extractor=shared)
    obs, states, starts = inputs(made)
    _, values, _ = acts_as_it_trains(made)
    with th.no_grad():
        th.testing.assert_close(values, plain.forward(3.0 * obs, states, starts)[1])


class TestCheck:
    """The comparison at a rollout's first step."""

    @staticmethod
    def overlooked() -> Any:
        """Something that the policy does not look at: torch's own distribution, on its class."""
        original = th.distributions.Categorical.log_prob
        return mock.patch.object(
            th.distributions.Categorical, "log_prob", lambda self, value: original(self, value) - 1.0
        )

    def test_a_difference_is_told_once_and_sb3s_modules_compute(self) -> None:
        made = policy()
        given = inputs(made)
        with self.overlooked(), th.no_grad():
            with pytest.warns(UserWarning, match="S5Policy: .* differ in log-probabilities by up to 1"):
                actions, _, log_prob, _ = made.forward(*given)
            th.testing.assert_close(log_prob, made.evaluate_actions(given[0], actions, *given[1:])[1])
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                made.forward(*given)

    def test_it_can_be_turned_off_and_that_is_kept(self, tmp_path: Any) -> None:
        made = policy(check_rollout=False)
        made.save(tmp_path / "policy")
        loaded = S5Policy.load(tmp_path / "policy")
        with self.overlooked(), th.no_grad():
            loaded.forward(*inputs(loaded))
        assert not loaded.check_rollout

    @pytest.mark.parametrize("name", SPACES)
    def test_random_numbers_are_as_without_it(self, name: str) -> None:
        drawn_by = []
        for check in (True, False):
            made = policy(name=name, check_rollout=check)
            th.manual_seed(5)
            drawn_by.append([*drawn(made), *drawn(made), th.rand(1)])
        assert all(map(th.equal, *drawn_by))

    def test_a_narrow_gaussian_is_no_difference(self) -> None:
        made = policy(name="box")
        with th.no_grad():
            made.log_std.fill_(-20.0)
            made.action_net.bias.fill_(50.0)
        drawn(made)
        assert not made._leaves_heads_to_sb3
