"""Tell parameters that are not finite before a model acts by them, trains on or is saved."""

from __future__ import annotations

import math

import torch as th
from torch import nn

__all__ = ["check_finite"]


def check_finite(policy: nn.Module, when: str) -> None:
    """Look at every parameter at once.

    Args:
        policy: the module.
        when: what the error says after the parameter's name, such as "after update 3".

    Raises:
        ValueError: a parameter that is not finite; one line that names the first.
    """
    with th.no_grad():
        total = nn.utils.parameters_to_vector(policy.parameters()).sum()
    if math.isfinite(total):
        return  # as no sum is that holds a NaN or an infinity
    for name, parameter in policy.named_parameters():
        count = int((~th.isfinite(parameter)).sum())
        if count:
            raise ValueError(
                f"parameter {name!r} is not finite {when}: {count} of {parameter.numel()} numbers are NaN "
                "or infinite; a smaller learning_rate or max_grad_norm, or scaled rewards, may avoid it"
            )
