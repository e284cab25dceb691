"""Lower learning rates for some parameters, under a framework's one schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["make_scaled_optimizer"]

Groups = list[dict[str, Any]]


def make_scaled_optimizer(
    make: Callable[[Groups], torch.optim.Optimizer], scaled: Iterable[tuple[nn.Parameter, float]]
) -> torch.optim.Optimizer:
    """Make an optimiser with a group for each learning rate.

    The first group's is the framework's own, and it may be empty; frameworks set every group's rate to their
    schedule's, so the others are scaled from it within each step. The state of an optimiser of one group over
    the same parameters can be loaded.

    Args:
        make: makes the optimiser of groups.
        scaled: each parameter with what its learning rate is multiplied by.
    """
    scaled = list(scaled)
    by_scale: dict[float, list[nn.Parameter]] = {1.0: []}
    for parameter, scale in scaled:
        by_scale.setdefault(scale, []).append(parameter)
    optimizer = make([{"params": parameters} for parameters in by_scale.values()])
    scales = list(by_scale)

    def scale_rates(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        first = optimizer.param_groups[0]
        for group, scale in zip(optimizer.param_groups, scales, strict=True):
            group["lr"] = scale * first["lr"]

    grouped = [parameter for parameters in by_scale.values() for parameter in parameters]
    places = {id(parameter): place for place, parameter in enumerate(grouped)}
    moved = [places[id(parameter)] for parameter, _ in scaled]

    def sort_into_groups(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> Any:
        groups = state["param_groups"]
        if len(groups) != 1 or len(scales) == 1 or len(groups[0]["params"]) != len(moved):
            return None
        options = {name: value for name, value in groups[0].items() if name != "params"}
        own = optimizer.state_dict()["param_groups"]
        return {
            "state": {moved[place]: value for place, value in state["state"].items()},
            "param_groups": [group | options for group in own],
        }

    optimizer.register_step_pre_hook(scale_rates)
    optimizer.register_load_state_dict_pre_hook(sort_into_groups)
    return optimizer
