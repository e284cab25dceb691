"""The layers between JAX's latents and SB3's heads."""

from __future__ import annotations

import torch as th
from stable_baselines3.common.torch_layers import create_mlp
from torch import nn

__all__ = ["Torsos"]


class Torsos(nn.Module):
    """The policy's `mlp_extractor`: torsos whose activation the core does not compute, else nothing.

    Args:
        dims: widths of the actor's and the critic's latents.
        archs: widths of the layers of each.
        activation: between the layers.
    """

    def __init__(
        self,
        dims: tuple[int, int],
        archs: tuple[tuple[int, ...], tuple[int, ...]],
        activation: type[nn.Module],
    ) -> None:
        """Build two sequences of dense layers, both empty where the core has the torsos."""
        super().__init__()
        nets = [
            nn.Sequential(*create_mlp(d, -1, list(arch), activation))
            for d, arch in zip(dims, archs, strict=True)
        ]
        self.policy_net, self.value_net = nets
        self.latent_dim_pi, self.latent_dim_vf = ([d, *a][-1] for d, a in zip(dims, archs, strict=True))

    def forward_actor(self, latent: th.Tensor) -> th.Tensor:
        """Return the action head's input."""
        features: th.Tensor = self.policy_net(latent)
        return features

    def forward_critic(self, latent: th.Tensor) -> th.Tensor:
        """Return the value head's input."""
        features: th.Tensor = self.value_net(latent)
        return features
