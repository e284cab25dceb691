"""Parts of a policy that are frozen or learn more slowly, under SB3's one schedule."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch as th

from s5_adapters.core.memories.memory import memory_class
from s5_adapters.core.network.parts import part_of, rate_scale, require_learning
from s5_adapters.torch_bridge.rates import make_scaled_optimizer

if TYPE_CHECKING:
    from s5_adapters.sb3.policies import S5Policy

__all__ = ["freeze_parts", "has_scaled_parts", "optimizer_with_scaled_parts"]


def freeze_parts(policy: S5Policy) -> None:
    """Take the gradients of the parts in `policy.freeze`.

    Raises:
        ValueError: nothing is left to learn; one line.
    """
    require_learning("freeze", policy.freeze, (_part(name) for name, _ in policy.named_parameters()))
    for name, parameter in policy.named_parameters():
        if _part(name) in policy.freeze:
            parameter.requires_grad_(False)


def has_scaled_parts(policy: S5Policy) -> bool:
    """Tell whether any parameter learns at another rate than the rest."""
    return policy.dynamics_lr_scale != 1 or bool(policy.lr_scales)


def optimizer_with_scaled_parts(policy: S5Policy, lr: float) -> th.optim.Optimizer:
    """Return the policy's optimizer, with a group for each rate.

    `policy.lr_scales` scales the parts that it names, `policy.dynamics_lr_scale` the memories' dynamics
    (`Memory.dynamics`) besides.
    """
    dynamics = memory_class(policy.trunk_config.memory).dynamics
    scaled = ((p, _scale(policy, name, dynamics)) for name, p in policy.named_parameters())
    make = partial(policy.optimizer_class, lr=lr, **policy.optimizer_kwargs)  # type: ignore[call-arg]
    return make_scaled_optimizer(make, scaled)


def _scale(policy: S5Policy, name: str, dynamics: tuple[str, ...]) -> float:
    module, _, rest = name.partition(".")
    if module == "trunk":
        return rate_scale(f"trunk/{rest}", policy.lr_scales, policy.dynamics_lr_scale, dynamics)
    scale: float = policy.lr_scales.get(_part(name), 1.0)
    return scale


def _part(name: str) -> str:
    """Return the part that one of the policy's parameters belongs to."""
    module, _, rest = name.partition(".")
    if module == "trunk":
        return part_of(f"trunk/{rest}")
    if module == "mlp_extractor":
        return "torsos"
    return "encoder" if module.endswith("features_extractor") else "heads"
