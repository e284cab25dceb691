"""Lower learning rates for some parameters, under a framework's one schedule."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

__all__ = ["follow_first_group", "groups_by_scale"]


def groups_by_scale(scaled: Iterable[tuple[nn.Parameter, float]]) -> tuple[list[dict[str, Any]], list[float]]:
    """Sort parameters into an optimiser's groups.

    Args:
        scaled: each parameter with what its learning rate is multiplied by.

    Returns:
        The groups, and each one's scale; the first group's is 1, and it may be empty.
    """
    by_scale: dict[float, list[nn.Parameter]] = {1.0: []}
    for parameter, scale in scaled:
        by_scale.setdefault(scale, []).append(parameter)
    return [{"params": parameters} for parameters in by_scale.values()], list(by_scale)


def follow_first_group(optimizer: torch.optim.Optimizer, scales: list[float]) -> None:
    """Scale each group's learning rate from the first's within each step.

    Frameworks set every group's rate to their schedule's.
    """

    def scale_rates(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        first = optimizer.param_groups[0]
        for group, scale in zip(optimizer.param_groups, scales, strict=True):
            group["lr"] = scale * first["lr"]

    optimizer.register_step_pre_hook(scale_rates)
