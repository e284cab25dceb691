"""Tell whether a policy's heads are still what SB3 and torch made them, so that a program may stand for them.

Whatever a user puts in their way makes them changed: another class, a method replaced on an object or on its
class, a hook, a parametrization. It can come at any time, so a rollout asks at every step, in microseconds:
the classes once, then their objects, each by few look-ups.
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

from s5_adapters.sb3.masked import MaskedCategorical, MaskedMultiCategorical
from s5_adapters.sb3.torsos import Torsos
from s5_adapters.torch_bridge.watched import PARAMETERS

if TYPE_CHECKING:
    from s5_adapters.sb3.policies import S5Policy

__all__ = ["head_parameters"]


class _Known(NamedTuple):
    """A class as it was when this module was imported."""

    cls: type
    methods: Callable[[type], tuple[Any, ...]]
    originals: tuple[Any, ...]


def _known(cls: type, *names: str) -> _Known:
    methods = attrgetter(*names)
    return _Known(cls, methods, methods(cls))


_CALLING = ("__call__", "_call_impl", "forward")
_DRAWING = ("proba_distribution", "log_prob", "sample", "mode", "get_actions")
_LINEAR, _SEQUENTIAL = _known(nn.Linear, *_CALLING), _known(nn.Sequential, *_CALLING)
_TORSOS = _known(Torsos, "forward_actor", "forward_critic")
_DISTRIBUTIONS = {
    cls: _known(cls, *_DRAWING)
    for cls in (
        CategoricalDistribution,
        MultiCategoricalDistribution,
        DiagGaussianDistribution,
        MaskedCategorical,
        MaskedMultiCategorical,
    )
}
_FROM_LATENT = ActorCriticPolicy._get_action_dist_from_latent


def head_parameters(policy: S5Policy) -> tuple[th.Tensor, ...]:
    """Return the heads' parameters, if only SB3's own heads and distribution stand between trunk and action.

    That is: no torsos in torch, two dense heads with a bias, in float32, and a distribution whose parameters
    are the action head's outputs and, for a Gaussian, the policy's `log_std`.

    Returns:
        weight and bias of the action head and of the value head, and a Gaussian's `log_std`; empty where
        anything else stands there.
    """
    if (
        type(policy)._get_action_dist_from_latent is not _FROM_LATENT
        or "_get_action_dist_from_latent" in policy.__dict__
        or torch_modules._global_forward_hooks
        or torch_modules._global_forward_pre_hooks
        or _is_replaced(_LINEAR)
        or not _is_empty(policy.mlp_extractor)
    ):
        return ()
    action_head, value_head = _dense(policy.action_net), _dense(policy.value_net)
    if not action_head or not value_head:
        return ()
    width, dist = action_head[1].shape[0], policy.action_dist
    if not _is_drawing(dist):
        return ()
    match dist:
        case CategoricalDistribution(action_dim=n):
            suits = n == width
        case MultiCategoricalDistribution(action_dims=dims):
            suits = sum(dims) == width
        case _:
            log_std = policy.log_std
            is_own = log_std is policy._parameters.get("log_std") and _is_plain(log_std)
            if is_own and log_std.shape == (width,):
                return *action_head, *value_head, log_std
            return ()
    return (*action_head, *value_head) if suits else ()


def _is_replaced(known: _Known) -> bool:
    """Tell whether a method was replaced on the class."""
    return known.methods(known.cls) != known.originals


def _is_called_as_it_is(own: dict[str, Any]) -> bool:
    """Tell whether neither hooks nor other methods stand in an `nn.Module`'s dictionary."""
    return not (  # names one by one: a set or a loop takes three times as long
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or "forward" in own
        or "_call_impl" in own
        or "_compiled_call_impl" in own
    )


def _is_empty(torsos: nn.Module) -> bool:
    if type(torsos) is not Torsos or _is_replaced(_TORSOS) or _is_replaced(_SEQUENTIAL):
        return False
    own = torsos.__dict__
    if "forward_actor" in own or "forward_critic" in own:
        return False
    for net in own["_modules"].values():
        if type(net) is not nn.Sequential or net._modules or not _is_called_as_it_is(net.__dict__):
            return False
    return True


def _dense(net: nn.Module) -> tuple[th.Tensor, ...]:
    """Return a dense layer's weight and bias; nothing of another layer, or of a changed one."""
    if type(net) is not nn.Linear or not _is_called_as_it_is(net.__dict__):
        return ()
    parameters: Any = net._parameters
    weight, bias = parameters.get("weight"), parameters.get("bias")
    if len(parameters) != 2 or not _is_plain(weight) or not _is_plain(bias):
        return ()
    return weight, bias


def _is_plain(parameter: Any) -> bool:
    return type(parameter) in PARAMETERS and parameter.dtype is th.float32


def _is_drawing(dist: Any) -> bool:
    """Tell whether a distribution is SB3's and unchanged."""
    known = _DISTRIBUTIONS.get(type(dist))
    if known is None or _is_replaced(known):
        return False
    own = dist.__dict__
    return not (
        "log_prob" in own
        or "sample" in own
        or "mode" in own
        or "get_actions" in own
        or "proba_distribution" in own
    )
