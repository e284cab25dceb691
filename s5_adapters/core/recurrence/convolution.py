"""The short causal convolution that some recurrences put before themselves, cut at resets."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from s5_adapters.core.shapes import Bool, Float
from s5_adapters.core.xla import rows


def causal_convolution(
    kernel: Float[Array, "W E"],
    bias: Float[Array, "E"],
    before: Float[Array, "B W-1 E"],
    x: Float[Array, "T B E"],
    episode_starts: Bool[Array, "T B"] | None,
) -> tuple[Float[Array, "B W-1 E"], Float[Array, "T B E"]]:
    """Convolve every channel over its last W steps, none of them from before a reset.

        y_t = bias + sum_k kernel_{W-1-k} x_{t-k},    x_{t-k} selected away where a reset came after it

    Args:
        kernel: ``(W, E)``, the latest step's weights last.
        bias: ``(E,)``.
        before: ``(B, W - 1, E)``, the steps before the first, the latest last.
        x: ``(T, B, E)``.
        episode_starts: ``(T, B)`` bool, or None for no resets.

    Returns:
        The last W - 1 steps, zero where a reset came after them, and the outputs ``(T, B, E)``.

    """
    length, batch = x.shape[:2]
    kept = len(kernel) - 1
    steps = jnp.concatenate([jnp.moveaxis(before, 1, 0), x])
    resets = jnp.zeros((length, batch), bool) if episode_starts is None else episode_starts
    resets = jnp.concatenate([jnp.zeros((kept, batch), bool), resets])  # as long as steps
    y, is_cut = rows.scale(kernel[kept], x), jnp.zeros((length, batch), bool)
    last, last_is_cut = [], jnp.zeros(batch, bool)
    for lag in range(1, kept + 1):
        is_cut = is_cut | resets[kept + 1 - lag : kept + 1 - lag + length]
        lagged = steps[kept - lag : kept - lag + length]
        y = y + rows.scale(kernel[kept - lag], jnp.where(is_cut[..., None], 0.0, lagged))
        last.append(jnp.where(last_is_cut[:, None], 0.0, steps[-lag]))
        last_is_cut = last_is_cut | resets[-lag]
    return jnp.stack(last[::-1], axis=1), rows.add_bias(y, bias)
