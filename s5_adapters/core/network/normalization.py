"""How observations are normalised, in training and by every adapter."""

from collections.abc import Callable
from typing import Any, Final

import jax.numpy as jnp

CLIP: Final = 10.0
"""Default bound of what was normalised, as in SB3's VecNormalize."""

EPSILON: Final = 1e-8
"""Default addend of the variance, as in SB3's VecNormalize."""


def normalize(
    x: Any,
    mean: Any,
    variance: Any,
    epsilon: Any = EPSILON,
    clip: Any = CLIP,
    *,
    sqrt: Callable[[Any], Any] = jnp.sqrt,
) -> Any:
    """Return ``clip((x - mean) / sqrt(variance + epsilon), -clip, clip)``.

    Args:
        x: ``(..., *shape)`` float32, JAX's, or torch's where ``sqrt`` is ``torch.sqrt``.
        mean: ``shape``, of the same kind.
        variance: ``shape``, of the same kind.
        epsilon: a scalar.
        clip: a scalar.
        sqrt: the square root of ``x``'s library.

    """
    return ((x - mean) / sqrt(variance + epsilon)).clip(-clip, clip)
