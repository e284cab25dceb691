"""Tell whether a policy's heads are still what SB3 and torch made them, so that a program may stand for them.

Whatever a user puts in their way makes them changed: another class, a method replaced on an object or on its
class, a hook, a parametrization. It can come at any time, so a rollout asks at every step, in microseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch as th
from stable_baselines3.common.distributions import (
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn
from torch.nn.modules import module as torch_modules

from s5_adapters.sb3.torsos import Torsos
from s5_adapters.torch_bridge.watched import PARAMETERS

if TYPE_CHECKING:
    from s5_adapters.sb3.policies import S5Policy

__all__ = ["heads_are_unchanged"]


class _Known(NamedTuple):
    """A class as it was when this module was imported."""

    methods: Callable[[type], tuple[Any, ...]]
    originals: tuple[Any, ...]
    hiding: tuple[str, ...]
    """Names that an object would hide a method by."""


def _known(cls: type, *names: str, hiding: tuple[str, ...] = ()) -> _Known:
    methods = attrgetter(*names)
    return _Known(methods, methods(cls), hiding or names)


_CALL = ("forward", "_call_impl", "_compiled_call_impl")
_DISTRIBUTIONS = (CategoricalDistribution, MultiCategoricalDistribution, DiagGaussianDistribution)
_KNOWN: dict[type, _Known] = {
    **{
        cls: _known(cls, "proba_distribution", "log_prob", "sample", "mode", "get_actions")
        for cls in _DISTRIBUTIONS
    },
    **{
        cls: _known(cls, "__call__", "_call_impl", "forward", hiding=_CALL)
        for cls in (nn.Linear, nn.Sequential)
    },
    Torsos: _known(Torsos, "forward_actor", "forward_critic"),
}
_FROM_LATENT = ActorCriticPolicy._get_action_dist_from_latent


def heads_are_unchanged(policy: S5Policy) -> bool:
    """Tell whether only SB3's own heads and distribution stand between the trunk and the action.

    That is: no torsos in torch, two dense heads with a bias, in float32, and a distribution whose parameters
    are the action head's outputs and, for a Gaussian, the policy's `log_std`.
    """
    action_net = policy.action_net
    return (
        type(policy)._get_action_dist_from_latent is _FROM_LATENT
        and "_get_action_dist_from_latent" not in vars(policy)
        and not torch_modules._global_forward_hooks
        and not torch_modules._global_forward_pre_hooks
        and _is_empty(policy.mlp_extractor)
        and _is_dense(policy.value_net)
        and _is_dense(action_net)
        and _suits(policy.action_dist, action_net, policy)
    )


def _is_empty(torsos: nn.Module) -> bool:
    if not _is_unchanged(torsos, Torsos):
        return False
    nets: Any = torsos._modules.values()
    return all([not net._modules and _is_unchanged(net, nn.Sequential) for net in nets])


def _is_dense(net: nn.Module) -> bool:
    if not _is_unchanged(net, nn.Linear) or net._parameters.keys() != {"weight", "bias"}:
        return False
    weight, bias = net._parameters["weight"], net._parameters["bias"]
    return _is_plain(weight) and _is_plain(bias)


def _is_plain(parameter: Any) -> bool:
    return type(parameter) in PARAMETERS and parameter.dtype is th.float32


def _suits(dist: Any, action_net: Any, policy: S5Policy) -> bool:
    """Tell whether a distribution is SB3's, for a dense action head of as many outputs."""
    width = len(action_net._parameters["bias"])
    kind = type(dist)
    if kind not in _DISTRIBUTIONS or not _is_unchanged(dist, kind):
        return False
    if kind is MultiCategoricalDistribution:
        return bool(sum(dist.action_dims) == width)
    if kind is CategoricalDistribution:
        return bool(dist.action_dim == width)
    log_std = policy.log_std
    return log_std is policy._parameters.get("log_std") and _is_plain(log_std) and log_std.shape == (width,)


def _is_unchanged(thing: object, cls: type) -> bool:
    if type(thing) is not cls:
        return False
    known, own = _KNOWN[cls], thing.__dict__
    if known.methods(cls) != known.originals or own.get("_forward_hooks") or own.get("_forward_pre_hooks"):
        return False
    for name in known.hiding:  # noqa: SIM110  (at every step: a generator takes three times as long)
        if name in own:
            return False
    return True
