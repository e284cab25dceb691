"""Blocks whose backward pass computes everything again, one block at a time.

``jax.checkpoint`` keeps the second computation apart from the first by an optimisation barrier. XLA's CPU
backend drops barriers, finds the two alike, merges them, and so stores all that was not to be stored. Here
the second computation starts from inputs that wait for the cotangent: it can neither be merged with the first
nor start early.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

Results = TypeVar("Results")


def after(known: Any, inputs: Any) -> Any:
    """Return ``inputs``, a pytree of floating arrays, in a way that uses them only once ``known`` is known.

    A zero is added to them that no compiler can tell before it knows the last array of ``known``.
    """
    element = lax.stop_gradient(jnp.ravel(jax.tree.leaves(known)[-1])[0])
    zero = 0.0 * jnp.where(jnp.isfinite(element), element, 0.0)
    return jax.tree.map(lambda leaf: leaf + zero.astype(leaf.dtype), inputs)


def recomputed(block: Callable[..., Results]) -> Callable[..., Results]:
    """Return ``block`` with nothing stored for its backward pass but its arguments.

    Args:
        block: maps ``(inputs, constants)``, pytrees of floating arrays and of any, to floating arrays.

    Returns:
        The same function. It has no gradient with respect to ``constants``.

    """

    @jax.custom_vjp
    def run(inputs: Any, constants: Any) -> Results:
        return block(inputs, constants)

    def forward(inputs: Any, constants: Any) -> tuple[Results, Any]:
        return block(inputs, constants), (inputs, constants)

    def backward(stored: Any, cotangents: Results) -> tuple[Any, None]:
        inputs, constants = stored
        _, gradient = jax.vjp(lambda again: block(again, constants), after(cotangents, inputs))
        return *gradient(cotangents), None

    run.defvjp(forward, backward)
    return run
