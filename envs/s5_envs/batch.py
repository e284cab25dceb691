"""A batch of one environment, stepped together: by ``jax.vmap``, or as the environment itself says."""

from __future__ import annotations

from typing import Any

import jax

from s5_envs.interface import Step


def reset_batch(env: Any, keys: jax.Array, params: Any) -> tuple[Any, Any]:
    """Begin an episode in each environment of a batch.

    Args:
        env: an environment; a ``MultiTask`` splits the batch between its families.
        keys: ``(num_envs,)`` keys.
        params: its parameters.

    Returns:
        observations, leading with ``num_envs``, and the states, which only ``step_batch`` knows how to read.
    """
    own = getattr(env, "reset_batch", None)
    begun: tuple[Any, Any] = own(keys, params) if own else jax.vmap(env.reset, (0, None))(keys, params)
    return begun


def step_batch(env: Any, keys: jax.Array, states: Any, action: jax.Array, params: Any) -> Step:
    """Take one step in each environment of a batch, with automatic reset.

    Args:
        env: as in ``reset_batch``.
        keys: ``(num_envs,)`` keys.
        states: as ``reset_batch`` or the last step gave them.
        action: ``(num_envs, ...)``.
        params: its parameters.

    Returns:
        ``obs, states, reward, terminated, truncated, info``, all but the states leading with ``num_envs``.
    """
    own = getattr(env, "step_batch", None)
    step: Step = (own or jax.vmap(env.step, (0, 0, 0, None)))(keys, states, action, params)
    return step
