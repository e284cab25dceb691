"""Actions of one size for every environment: boxes from -1 to 1, stretched to an environment's own bounds."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from s5_envs import spaces


def unit_box(size: int) -> spaces.Box:
    """Return the space of ``(size,)`` float32 from -1 to 1."""
    return spaces.Box(-1.0, 1.0, (size,))


def from_unit_box(space: spaces.Box, action: jax.Array) -> jax.Array:
    """Return the action of ``space`` that a flat action from -1 to 1 stands for.

    Components between finite bounds are clipped to [-1, 1] and stretched to the bounds; others stay as they
    are.

    Args:
        space: the environment's action space, its bounds known while tracing.
        action: ``(prod(space.shape),)`` float32.
    """
    size = math.prod(space.shape)
    low, high = (np.broadcast_to(np.asarray(b, np.float64), space.shape) for b in (space.low, space.high))
    # Half of each bound, as the difference of float32's largest numbers is not finite.
    middle, half = (low / 2 + high / 2).reshape(size), (high / 2 - low / 2).reshape(size)
    bounded = half < np.finfo(np.float32).max / 2
    centre, reach = (np.where(bounded, x, 0.0).astype(np.float32) for x in (middle, half))
    stretched = jnp.where(bounded, centre + reach * jnp.clip(action, -1.0, 1.0), action)
    return stretched.reshape(space.shape).astype(space.dtype)
