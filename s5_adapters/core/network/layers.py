"""Layers before and behind the memory: dense layers and the Nature CNN."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from s5_adapters.core.network.config import ACTIVATIONS, ActorCriticConfig
from s5_adapters.core.shapes import Float, Shaped
from s5_adapters.core.xla.initializers import orthogonal
from s5_adapters.core.xla.rows import Dense


class MLP(nn.Module):
    """Dense layers, each followed by the activation; orthogonal weights, zero biases."""

    widths: tuple[int, ...]
    activation: str
    scale: float

    @nn.compact
    def __call__(self, x: Float[Array, "*batch F"]) -> Float[Array, "*batch H"]:
        """Map ``(..., F)`` to ``(..., widths[-1])``."""
        for width in self.widths:
            x = Dense(width, kernel_init=orthogonal(self.scale))(x)
            x = ACTIVATIONS[self.activation](x)
        return x


class NatureCNN(nn.Module):
    """Three convolutions and a dense layer, each with ReLU (Mnih et al. 2015, doi 10.1038/nature14236)."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "N height width channels"]) -> Float[Array, "N features"]:
        """Map images ``(N, height, width, channels)`` to ``(N, features)``."""
        for channels, size, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            init = orthogonal(2.0**0.5)
            x = nn.Conv(channels, (size, size), (stride, stride), padding="VALID", kernel_init=init)(x)
            x = nn.relu(x)
        x = x.reshape(len(x), -1)
        return nn.relu(Dense(self.features, kernel_init=orthogonal(2.0**0.5))(x))


class Encoder(nn.Module):
    """Nature CNN for images, then dense layers."""

    config: ActorCriticConfig

    @nn.compact
    def __call__(self, obs: Shaped[Array, "N *obs_shape"]) -> Float[Array, "N F"]:
        """Map ``(N, *obs_shape)`` to ``(N, features)`` float32."""
        x = obs.astype(jnp.float32)
        if self.config.is_image:
            x = NatureCNN(self.config.cnn_features)(x / 255.0 if obs.dtype == jnp.uint8 else x)
        return MLP(self.config.encoder, self.config.activation, scale=2.0**0.5)(x)


class _Parent(nn.Module):
    """A layer as the child of a name."""

    layer: nn.Module
    child: str

    @nn.compact
    def __call__(self, x: Array) -> Any:
        return self.layer.copy(name=self.child)(x)


def init_layer(layer: nn.Module, key: Array, *shape: int, name: str | None = None) -> dict[str, Any]:
    """Make a layer's parameters for inputs ``(1, *shape)``; an empty dict where it has none.

    Flax derives keys from paths. With a ``name`` the layer is drawn as the child of that name, so that a
    seed gives the same values wherever the parameters are kept.
    """
    x = jnp.zeros((1, *shape), jnp.float32)
    if name is None:
        return dict(layer.init(key, x).get("params", {}))
    return dict(_Parent(layer, name).init(key, x).get("params", {}).get(name, {}))
