"""A policy as one StableHLO program, which runs where there is JAX and nothing else."""

import os
from typing import Final

import jax
import jax.export
import jax.numpy as jnp
from jax import Array

from s5_adapters.core.files.weights import Policy, write_whole

PLATFORMS: Final = ("cpu", "cuda", "rocm", "tpu")
"""The platforms that the program is lowered for."""


def export_stablehlo(path: str | os.PathLike[str], policy: Policy) -> None:
    """Write one step of a policy, weights inside, as a serialised ``jax.export.Exported``.

    ``jax.export.deserialize(content).call(obs, state, episode_starts)`` returns ``(action, state)`` for any
    batch size: the most likely action, in the environment's units and clipped to its bounds. ``obs`` is
    ``(batch, *obs_shape)``, float32, or uint8 for images; ``state`` a tuple of float32 arrays
    ``(batch, ...)``, zeros before the first step; ``episode_starts`` ``(batch,)`` bool.

    The file is written whole or not at all.

    Args:
        path: the file.
        policy: what to export.

    """
    (batch,) = jax.export.symbolic_shape("batch")
    first = policy.initial_state(1)
    structure, leaves = jax.tree.structure(first), jax.tree.leaves(first)
    dtype = jnp.uint8 if policy.config.is_image else jnp.float32
    obs = jnp.zeros((1, *policy.config.obs_shape), dtype)
    policy.act(obs, first, jnp.ones(1, bool))  # prepares the weights, so that no step does

    def act(obs: Array, state: tuple[Array, ...], episode_start: Array) -> tuple[Array, tuple[Array, ...]]:
        """Return one environment's step: batches of one, since no network needs to know of symbolic sizes."""
        one = jax.tree.unflatten(structure, [leaf[None] for leaf in state])
        action, after = policy.act(obs[None], one, episode_start[None])
        return action[0], tuple(leaf[0] for leaf in jax.tree.leaves(after))

    exported = jax.export.export(jax.jit(jax.vmap(act)), platforms=PLATFORMS)(
        jax.ShapeDtypeStruct((batch, *policy.config.obs_shape), dtype),
        tuple(jax.ShapeDtypeStruct((batch, *leaf.shape[1:]), leaf.dtype) for leaf in leaves),
        jax.ShapeDtypeStruct((batch,), jnp.bool_),
    )
    write_whole(path, bytes(exported.serialize()))
