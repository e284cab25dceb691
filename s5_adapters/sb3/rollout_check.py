"""The check of a policy's first rollout: its compiled step against SB3's modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch as th
from stable_baselines3.common.distributions import DiagGaussianDistribution

if TYPE_CHECKING:
    from s5_adapters.sb3.policies import S5Policy

__all__ = ["RandomState", "difference"]


class RandomState:
    """Torch's random state of the moment, on the CPU and on a device."""

    def __init__(self, device: th.device) -> None:
        """Copy it."""
        self._cuda = [device] if device.type == "cuda" else []
        self._states = th.get_rng_state(), [th.cuda.get_rng_state(d) for d in self._cuda]

    def restore(self) -> None:
        """Make torch draw again what it drew since."""
        th.set_rng_state(self._states[0])
        for device, state in zip(self._cuda, self._states[1], strict=True):
            th.cuda.set_rng_state(state, device)


def difference(policy: S5Policy, ours: list[th.Tensor], theirs: list[th.Tensor]) -> str:
    """Describe how a compiled step differs from SB3's modules on the same latents and random numbers.

    Args:
        policy: whose step it is.
        ours: actions, values and log-probabilities by the program.
        theirs: the same by SB3's modules.

    Returns:
        Which of them differ and by how much; empty where fewer than one row in a hundred does, since two
        actions' chances may be equal up to rounding.
    """
    # Matrices are multiplied in TensorFloat-32 by JAX on a GPU, in float32 by torch.
    tolerance = 1e-4 if ours[0].device.type == "cpu" else 1e-2
    rounding = th.zeros(())
    if type(policy.action_dist) is DiagGaussianDistribution:  # a narrow one amplifies the actions' rounding
        rounding = 1e-5 * (1 + ours[0].abs().max()) * policy.log_std.neg().exp().max()
    told = []
    for name, mine, other in zip(("actions", "values", "log-probabilities"), ours, theirs, strict=True):
        if mine.shape != other.shape:
            told.append(f"{name} of shape {tuple(other.shape)}, not {tuple(mine.shape)}")
            continue
        apart = (mine - other).abs().reshape(len(mine), -1)
        slack = tolerance * (1 + other.abs().reshape(len(mine), -1))
        if name == "log-probabilities":
            slack = slack + rounding
        if 100 * int((apart > slack).any(dim=1).sum()) > len(mine):
            told.append(f"{name} by up to {float(apart.max()):.3g}")
    return ", ".join(told)
