"""Causal self-attention in a sliding window (Vaswani et al. 2017, arXiv 1706.03762), cut at resets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from s5_adapters.core.checks import integer
from s5_adapters.core.memories.memory import Memory, Params, init_projection, project, register_memory
from s5_adapters.core.shapes import Bool, Float
from s5_adapters.core.xla.rows import Dense

ROTARY_BASE: Final = 10_000.0
MLP_FACTOR: Final = 4


class Cache(NamedTuple):
    """The last ``context - 1`` steps, the latest last; float32."""

    keys: Array
    """``(batch, n_layers, context - 1, d_model)``, before rotation."""
    values: Array
    """``(batch, n_layers, context - 1, d_model)``."""
    length: Array
    """``(batch, 1)``: how many of those steps belong to the current episode."""


@register_memory("attention")
@dataclass(frozen=True, kw_only=True)
class Attention(Memory):
    """Pre-norm transformer blocks; a step attends to itself and the steps before it, in its episode and its
    context.

    Positions are rotary (Su et al. 2021, arXiv 2104.09864), thus relative: a cached key is rotated when it is
    used. The state is a ``Cache``, so acting costs O(context) a step.

    Attributes:
        n_heads: attention heads; must divide d_model into even parts.
        context: steps that a step can see in each layer, itself included, at least 2.

    """

    n_heads: int = 4
    context: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        self.set_checked(
            n_heads=integer("n_heads", self.n_heads), context=integer("context", self.context, minimum=2)
        )
        if self.d_model % (2 * self.n_heads):
            raise ValueError(
                f"d_model: got {self.d_model}, expected a multiple of 2 * n_heads = {2 * self.n_heads}"
            )

    @property
    def state_shape(self) -> Cache:
        """The shapes of a ``Cache``."""
        entries = (self.n_layers, self.context - 1, self.d_model)
        return Cache(entries, entries, (1,))  # type: ignore[arg-type]

    @property
    def _block(self) -> Block:
        return Block(self.d_model, self.n_heads)

    def init(self, key: Array, width: int) -> Params:
        """Make parameters. See ``Memory.init``."""
        projection_key, blocks_key = jax.random.split(key)
        entry = jnp.zeros((1, 1, self.d_model), jnp.float32)
        mask = jnp.ones((1, 1, 2), bool)
        blocks = jax.vmap(lambda k: self._block.init(k, entry, entry, entry, mask)["params"])(
            jax.random.split(blocks_key, self.n_layers)
        )
        return {**init_projection(projection_key, width, self.d_model), "blocks": blocks}

    def apply(
        self, params: Params, state: Cache, x: Float[Array, "T B F"], episode_starts: Bool[Array, "T B"]
    ) -> tuple[Cache, Float[Array, "T B H"]]:
        """Run over a sequence; memory and time grow with T (T + context). See ``Memory.apply``."""
        self.check_sequence(params, state, x, episode_starts)
        x = jnp.swapaxes(project(params, x), 0, 1)
        episode, mask = self._mask(state.length[:, 0], jnp.swapaxes(episode_starts, 0, 1))
        kept = self.context - 1
        keys, values = [], []
        for i in range(self.n_layers):
            block_params = jax.tree.map(lambda leaf, i=i: leaf[i], params["blocks"])
            outputs: Any = self._block.apply(
                {"params": block_params}, x, state.keys[:, i], state.values[:, i], mask
            )
            x, layer_keys, layer_values = outputs
            keys.append(layer_keys[:, -kept:])
            values.append(layer_values[:, -kept:])
        current = jnp.sum(episode == episode[:, -1:], axis=1, keepdims=True)
        length = jnp.minimum(current, kept).astype(jnp.float32)
        return Cache(jnp.stack(keys, 1), jnp.stack(values, 1), length), jnp.swapaxes(x, 0, 1)

    def step(
        self, prepared: Params, state: Cache, x: Float[Array, "B F"], episode_starts: Bool[Array, "B"]
    ) -> tuple[Cache, Float[Array, "B H"]]:
        """Run over one step. See ``Memory.step``."""
        state, y = self.apply(prepared, state, x[None], episode_starts[None])
        return state, y[0]

    def _mask(self, length: Array, starts: Array) -> tuple[Array, Array]:
        """Number all steps' episodes, ``(B, C + T)``; say which each new step sees, ``(B, T, C + T)``."""
        cached, steps = self.context - 1, starts.shape[1]
        age = cached - jnp.arange(cached)
        old = jnp.where(age <= length[:, None], 0, -1)
        new = jnp.cumsum(starts, axis=1)
        episode = jnp.concatenate([old, new], axis=1)
        distance = (cached + jnp.arange(steps))[:, None] - jnp.arange(cached + steps)
        within = (distance >= 0) & (distance < self.context)
        return episode, within & (episode[:, None, :] == new[:, :, None])


class Block(nn.Module):
    """Attention and a two-layer perceptron, each with layer norm before and a residual connection around."""

    d_model: int
    n_heads: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T H"],
        cached_keys: Float[Array, "B C H"],
        cached_values: Float[Array, "B C H"],
        mask: Bool[Array, "B T C+T"],
    ) -> tuple[Float[Array, "B T H"], Float[Array, "B C+T H"], Float[Array, "B C+T H"]]:
        """Map ``x (B, T, H)``, a cache ``(B, C, H)``, ``mask (B, T, C + T)`` to outputs, keys and values."""
        query, key, value = jnp.split(Dense(3 * self.d_model, name="qkv")(nn.LayerNorm()(x)), 3, axis=-1)
        keys = jnp.concatenate([cached_keys, key], axis=1)
        values = jnp.concatenate([cached_values, value], axis=1)
        # Weights of 0 do not stop a NaN of an episode that is over, so none may enter; who does see one gets
        # it. In the gradient the later keys meet the earlier queries, so neither may be NaN.
        finite = jnp.isfinite(keys).all(-1) & jnp.isfinite(values).all(-1)
        own = finite[:, -x.shape[1] :, None] & jnp.isfinite(query).all(-1, keepdims=True)
        attended = jax.nn.dot_product_attention(
            rotate(self._heads(jnp.where(own, query, 0.0)), keys.shape[1] - x.shape[1]),
            rotate(self._heads(jnp.where(finite[..., None], keys, 0.0)), 0),
            self._heads(jnp.where(finite[..., None], values, 0.0)),
            mask=mask[:, None],
        ).reshape(x.shape)
        poisoned = jnp.any(mask & ~finite[:, None], axis=-1) | ~own[..., 0]
        attended = jnp.where(poisoned[..., None], jnp.nan, attended)
        x = x + Dense(self.d_model, name="out")(attended)
        hidden = nn.gelu(Dense(MLP_FACTOR * self.d_model, name="up")(nn.LayerNorm()(x)))
        return x + Dense(self.d_model, name="down")(hidden), keys, values

    def _heads(self, x: Array) -> Array:
        return x.reshape(*x.shape[:2], self.n_heads, -1)


def rotate(x: Float[Array, "B T heads D"], first: int) -> Float[Array, "B T heads D"]:
    """Rotate ``x (B, T, heads, D)``, D even, by its positions ``first ... first + T - 1``."""
    half = x.shape[-1] // 2
    frequency = ROTARY_BASE ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = ((first + jnp.arange(x.shape[1]))[:, None] * frequency)[:, None]
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate(
        [a * jnp.cos(angle) - b * jnp.sin(angle), a * jnp.sin(angle) + b * jnp.cos(angle)], -1
    )
