"""A policy as one StableHLO program, which runs where there is JAX and nothing else."""

import os
from typing import Any, Final

import jax
import jax.export
from jax import Array

from s5_adapters.core.files.one_step import one_step
from s5_adapters.core.files.weights import Policy, write_whole

PLATFORMS: Final = ("cpu", "cuda", "rocm", "tpu")
"""The platforms that the program is lowered for."""


def export_stablehlo(path: str | os.PathLike[str], policy: Policy) -> None:
    """Write one step of a policy, weights inside, as a serialised ``jax.export.Exported``.

    ``jax.export.deserialize(content).call(obs, state, episode_starts)`` returns ``(action, state)`` for any
    batch size: the most likely action, in the environment's units and clipped to its bounds. ``obs`` is
    ``(batch, *obs_shape)``, float32, or uint8 for images; ``state`` a tuple of float32 arrays
    ``(batch, ...)``, zeros before the first step; ``episode_starts`` ``(batch,)`` bool. A policy that was
    trained with masks takes ``action_mask`` as well, ``(batch, K)`` bool.

    The file is written whole or not at all.

    Args:
        path: the file.
        policy: what to export.

    """
    step = one_step(policy)

    def act(*arguments: Any) -> tuple[Array, tuple[Array, ...]]:
        action, _, state = step.run(*arguments)
        return action, state

    exported = jax.export.export(jax.jit(act), platforms=PLATFORMS)(*step.arguments)
    write_whole(path, bytes(exported.serialize()))
