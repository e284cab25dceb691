"""A lower learning rate for what makes a memory's state fade and turn, under SB3's one schedule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch as th
from torch import nn

from s5_adapters.core.memories.memory import memory_class

if TYPE_CHECKING:
    from s5_adapters.sb3.policies import S5Policy

__all__ = ["optimizer_with_scaled_dynamics"]


def optimizer_with_scaled_dynamics(policy: S5Policy, lr: float, scale: float) -> th.optim.Optimizer:
    """Return the policy's optimizer, with the memories' dynamics (`Memory.dynamics`) in a second group.

    SB3 sets the rate of every group to its schedule's before each training: the second is scaled from the
    first within each step.

    Raises:
        ValueError: the memory says of no parameter that it makes its state fade.
    """
    memory = policy.trunk_config.memory
    slow = list(_dynamics(policy, memory_class(memory).dynamics))
    if not slow:
        raise ValueError(f"dynamics_lr_scale: got {scale:g}, expected 1 with memory {memory!r}")
    held = {id(parameter) for parameter in slow}
    rest = [parameter for parameter in policy.parameters() if id(parameter) not in held]
    groups: list[dict[str, Any]] = [{"params": rest}, {"params": slow}]
    optimizer = policy.optimizer_class(groups, lr=lr, **policy.optimizer_kwargs)  # type: ignore[call-arg]

    def scale_rate(optimizer: th.optim.Optimizer, *_: Any) -> None:
        first, second = optimizer.param_groups
        second["lr"] = scale * first["lr"]

    optimizer.register_step_pre_hook(scale_rate)
    return optimizer


def _dynamics(policy: S5Policy, names: tuple[str, ...]) -> Iterator[nn.Parameter]:
    for part in (policy.lstm_actor, policy.lstm_critic):
        if part is not None:
            yield from (parameter for name, parameter in part.named_parameters() if name in names)
