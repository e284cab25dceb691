"""One step of a policy as a function of arrays, weights inside, traced for any batch size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
from jax import Array

from s5_adapters.core.files.weights import Policy, choose_action
from s5_adapters.core.network.masks import mask_inputs


class OneStep(NamedTuple):
    """A policy's step and what it takes; the leading axis of every array is the symbolic size ``batch``."""

    run: Callable[..., tuple[Array, Array, tuple[Array, ...]]]
    """``(obs, state, episode_starts)``, and ``action_mask`` where the policy was trained with masks, to the
    most likely action, in the environment's units and clipped to its bounds, the distribution's inputs and
    the next state. The state is a tuple of its leaves."""
    arguments: tuple[Any, ...]
    """Their shapes and dtypes."""


def one_step(policy: Policy) -> OneStep:
    """Make the step; the weights are prepared here, so that no step does."""
    (batch,) = jax.export.symbolic_shape("batch")
    config, first = policy.config, policy.initial_state(1)
    structure, leaves = jax.tree.structure(first), jax.tree.leaves(first)
    obs_dtype = jnp.uint8 if config.is_image else jnp.float32
    policy.evaluate(jnp.zeros((1, *config.obs_shape), obs_dtype), first, jnp.ones(1, bool))

    def step(
        obs: Array, state: tuple[Array, ...], episode_start: Array, *action_mask: Array
    ) -> tuple[Array, Array, tuple[Array, ...]]:
        """Return one environment's step: batches of one, since no network needs to know of symbolic sizes."""
        one = jax.tree.unflatten(structure, [leaf[None] for leaf in state])
        inputs, _, after = policy.evaluate(obs[None], one, episode_start[None])
        inputs = mask_inputs(config.action, inputs, action_mask[0][None] if action_mask else None)
        action = choose_action(config.action, inputs)
        return action[0], inputs[0], tuple(leaf[0] for leaf in jax.tree.leaves(after))

    arguments: tuple[Any, ...] = (
        jax.ShapeDtypeStruct((batch, *config.obs_shape), obs_dtype),
        tuple(jax.ShapeDtypeStruct((batch, *leaf.shape[1:]), leaf.dtype) for leaf in leaves),
        jax.ShapeDtypeStruct((batch,), jnp.bool_),
    )
    if config.action_mask:
        arguments += (jax.ShapeDtypeStruct((batch, config.action.num_inputs), jnp.bool_),)
    return OneStep(jax.vmap(step), arguments)
