"""The heads of the actor-critic: dense maps from the latents to the distribution's inputs and the value."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from s5_adapters.core.memories.memory import Params
from s5_adapters.core.network.distributions import ActionSpec, Box
from s5_adapters.core.network.layers import init_layer
from s5_adapters.core.shapes import Float
from s5_adapters.core.xla.initializers import orthogonal
from s5_adapters.core.xla.rows import Dense, dense


@dataclass(frozen=True)
class Heads:
    """The actor's head and the critic's; immutable, equal and hashable by its fields.

    Parameters are a dict with ``actor`` and ``critic``, a ``kernel`` and a ``bias`` each, and with
    ``log_std`` for a ``Box``.

    Attributes:
        action: what the actor chooses.
        latent_widths: widths of what the two read.

    """

    action: ActionSpec
    latent_widths: tuple[int, int]

    def init(self, actor_key: Array, critic_key: Array) -> dict[str, Any]:
        """Make parameters: the fresh actor prefers nothing, and a ``Box`` has standard deviations of 1."""
        keys = {"actor": actor_key, "critic": critic_key}
        layers = zip(self._layers.items(), self.latent_widths, strict=True)
        params: dict[str, Any] = {
            part: init_layer(layer, keys[part], width, name="Dense_0") for (part, layer), width in layers
        }
        if isinstance(self.action, Box):
            params["log_std"] = jnp.zeros(len(self.action.low), jnp.float32)
        return params

    def param_shapes(self) -> dict[str, Any]:
        """Return ``init``'s result as ``jax.ShapeDtypeStruct`` leaves, computing nothing."""
        key = jax.random.key(0)
        shapes: dict[str, Any] = jax.eval_shape(self.init, key, key)
        return shapes

    def apply(
        self, params: Params, actor_latent: Float[Array, "*batch A"], critic_latent: Float[Array, "*batch C"]
    ) -> tuple[Float[Array, "*batch K"], Float[Array, "*batch"]]:
        """Map latents ``(..., width)`` to the distribution's inputs ``(..., K)`` and values ``(...)``."""
        inputs = dense(actor_latent, **params["actor"])
        if isinstance(self.action, Box):
            inputs = jnp.concatenate([inputs, jnp.broadcast_to(params["log_std"], inputs.shape)], axis=-1)
        return inputs, dense(critic_latent, **params["critic"])[..., 0]

    @cached_property
    def _layers(self) -> dict[str, Dense]:
        outputs = self.action.num_inputs // (2 if isinstance(self.action, Box) else 1)
        return {
            "actor": Dense(outputs, kernel_init=orthogonal(0.01)),
            "critic": Dense(1, kernel_init=orthogonal(1.0)),
        }
