"""No memory at all: what any memory has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from s5_adapters.core.memories.memory import Memory, Params, State, init_projection, project, register_memory
from s5_adapters.core.shapes import Bool, Float
from s5_adapters.core.xla.initializers import orthogonal


@register_memory("feedforward")
@dataclass(frozen=True, kw_only=True)
class Feedforward(Memory):
    """Dense layers with leaky ReLU, each step for itself; the state is the empty tuple."""

    @property
    def state_shape(self) -> tuple[()]:
        """``()``: nothing is carried."""
        return ()

    def init(self, key: Array, width: int) -> dict[str, Array]:
        """Make parameters. See ``Memory.init``."""
        projection_key, layers_key = jax.random.split(key)
        shape = (self.d_model, self.d_model)
        init = orthogonal(2.0**0.5)
        kernels = jax.vmap(lambda k: init(k, shape, jnp.float32))(jax.random.split(layers_key, self.n_layers))
        layers = {"kernel": kernels, "bias": jnp.zeros((self.n_layers, self.d_model), jnp.float32)}
        return {**init_projection(projection_key, width, self.d_model), **layers}

    def apply(
        self, params: Params, state: State, x: Float[Array, "T B F"], episode_starts: Bool[Array, "T B"]
    ) -> tuple[State, Float[Array, "T B H"]]:
        """Run over a sequence. See ``Memory.apply``."""
        self.check_sequence(params, state, x, episode_starts)
        return self.step(params, state, x, episode_starts)

    def step(
        self, prepared: Params, state: State, x: Float[Array, "B F"], episode_starts: Bool[Array, "B"]
    ) -> tuple[State, Float[Array, "B H"]]:
        """Run over one step, or over many at once: each is for itself. See ``Memory.step``."""
        x = project(prepared, x)
        for kernel, bias in zip(prepared["kernel"], prepared["bias"], strict=True):
            x = nn.leaky_relu(x @ kernel + bias)
        return (), x
