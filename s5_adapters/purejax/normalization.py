"""Running statistics of observations and of discounted returns, updated inside the rollout."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from s5_adapters.core.network import normalization
from s5_adapters.core.network.masks import MaskedObservation
from s5_adapters.core.network.normalization import CLIP, EPSILON
from s5_adapters.purejax.split import WHOLE, Split


class RunningStats(NamedTuple):
    """Mean and variance of every number seen so far."""

    mean: jax.Array
    """float32, the shape of one sample."""
    variance: jax.Array
    """float32, the shape of one sample; population variance."""
    samples: jax.Array
    """float32 scalar: how many. Past 2**24 it grows in rounded steps, favouring late samples a little."""


def init_stats(shape: tuple[int, ...]) -> RunningStats:
    """Return statistics of no samples: mean 0, variance 1."""
    return RunningStats(jnp.zeros(shape, jnp.float32), jnp.ones(shape, jnp.float32), jnp.float32(0))


def update_stats(stats: RunningStats, batch: jax.Array, split: Split = WHOLE) -> RunningStats:
    """Merge a batch into the statistics (Chan, Golub and LeVeque's pairwise update).

    Args:
        stats: statistics with samples of shape ``(...)``.
        batch: ``(batch, ...)``, any real dtype.
        split: over devices, whose batches are one.
    """
    batch = batch.astype(jnp.float32)
    batch_count = jnp.float32(batch.shape[0] * split.devices)
    batch_mean, batch_variance = split.moments(batch, axis=0)
    count = stats.samples + batch_count
    difference = batch_mean - stats.mean
    mean = stats.mean + difference * (batch_count / count)
    squares = stats.variance * stats.samples + batch_variance * batch_count
    squares += jnp.square(difference) * (stats.samples * batch_count / count)
    return RunningStats(mean, squares / count, count)


def normalize(stats: RunningStats, x: Any) -> Any:
    """Return ``(x - mean) / std`` clipped to [-CLIP, CLIP], float32; ``x`` is ``(..., *sample_shape)``.

    A ``MaskedObservation`` keeps its mask.
    """
    if isinstance(x, MaskedObservation):
        return x._replace(obs=normalize(stats, x.obs))
    normal: jax.Array = normalization.normalize(x.astype(jnp.float32), stats.mean, stats.variance)
    return normal


def scale(stats: RunningStats, x: jax.Array) -> jax.Array:
    """Return ``x / std``, clipped to [-CLIP, CLIP]: a reward keeps its sign and its zero."""
    return jnp.clip(x / jnp.sqrt(stats.variance + EPSILON), -CLIP, CLIP)
