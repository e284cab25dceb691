"""The norm of all gradients, and clipping by it, in few kernels.

A sum for each array is a kernel or two for each, and a GPU's kernels have a least time: with four layers of
S5 they were two dozen of a gradient step's 270. There all arrays are copied into one first. On a CPU there is
nothing to save.
"""

import jax
import optax
from jax.flatten_util import ravel_pytree

from s5_adapters.core.xla.platform import default_platform
from s5_adapters.purejax.problem import Pytree


def global_norm(tree: Pytree) -> jax.Array:
    """Return the Euclidean norm of all numbers of a pytree of real arrays, a scalar."""
    norm: jax.Array = optax.tree.norm(tree if default_platform() == "cpu" else ravel_pytree(tree)[0])
    return norm


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """Scale gradients down where their norm is above a limit; it keeps no state."""
    clip = optax.clip_by_global_norm(limit)
    return clip if default_platform() == "cpu" else optax.flatten(clip)
