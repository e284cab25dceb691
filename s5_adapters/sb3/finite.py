"""Tell parameters that are not finite before a model acts by them, trains on or is saved."""

from __future__ import annotations

import torch as th
from torch import nn

__all__ = ["check_finite"]


def check_finite(policy: nn.Module, when: str) -> None:
    """Look at every parameter, with one wait for the device.

    Args:
        policy: the module.
        when: what the error says after the parameter's name, such as "after update 3".

    Raises:
        ValueError: a parameter that is not finite; one line that names the first.
    """
    named = dict(policy.named_parameters())
    finite = th.stack([th.isfinite(parameter.detach()).all() for parameter in named.values()])
    for name, good in zip(named, finite.tolist(), strict=True):
        if not good:
            count = int((~th.isfinite(named[name])).sum())
            raise ValueError(
                f"parameter {name!r} is not finite {when}: {count} of {named[name].numel()} numbers are NaN "
                "or infinite; a smaller learning_rate or max_grad_norm, or scaled rewards, may avoid it"
            )
