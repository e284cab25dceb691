"""Observation statistics as a torch module."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from s5_adapters.core.network.normalization import normalize

__all__ = ["Normalizer"]


class Normalizer(nn.Module):
    """Normalise observations as a portable policy does (`core.network.normalization.normalize`).

    The statistics are frozen, and travel with the module's state.

    Args:
        mean: `obs_shape`.
        variance: `obs_shape`.
        epsilon: added to the variance.
        clip: bound of the result.
    """

    mean: torch.Tensor
    variance: torch.Tensor

    def __init__(self, mean: np.ndarray, variance: np.ndarray, epsilon: float, clip: float) -> None:
        """Copy the statistics."""
        super().__init__()
        self.epsilon, self.clip = epsilon, clip
        self.register_buffer("mean", torch.tensor(np.asarray(mean), dtype=torch.float32))
        self.register_buffer("variance", torch.tensor(np.asarray(variance), dtype=torch.float32))

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        """Map `(..., *obs_shape)` of any dtype to float32."""
        statistics = self.mean, self.variance, self.epsilon, self.clip
        normalized: torch.Tensor = normalize(obs.float(), *statistics, sqrt=torch.sqrt)
        return normalized
