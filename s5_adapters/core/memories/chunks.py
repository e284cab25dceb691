"""Run a recurrent stack in parts that suit the processor: a sequence in chunks of time, a step in groups.

Every operation of an S5 stack but its scan treats each step alone, so the stack may run over one chunk of
time after another and hand its state on. The layers then read each other's results from the cache instead of
from memory, and the backward pass can recompute a chunk instead of storing it. A step treats each batch
element alone, so groups of them may run through all layers side by side.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from s5_adapters.core.recurrence.scan import AUTO, STATES
from s5_adapters.core.xla.platform import default_platform

REMATS: Final = ("none", "dots", "full")
GATES: Final = "gates"
"""The name of the gates' products, which ``remat="dots"`` stores with the states."""
DEFAULT_ROWS: Final = {"cpu": 1024}
"""Rows a chunk by platform, where a benchmark found chunks to pay; 0, the whole sequence, elsewhere."""
FULL_STEPS: Final = 64
"""Steps a chunk under ``remat="full"``, which stores a state a layer and chunk and works with one block's
arrays: with few steps the states are the larger part, with many the arrays."""
LEAST_ROWS: Final = 256
"""Rows a chunk at least, however few the batch elements: below it a chunk's overhead dominates."""

GROUP_ROWS: Final = {"cpu": 16}
"""Batch elements a group by platform, where a benchmark found groups to pay."""
GROUPED_ROWS: Final = 64
"""The largest batch that is cut into groups: the products of a larger one are fast enough as they are."""
GROUPED_WEIGHTS: Final = 1 << 17
"""The least ``n_layers * d_model ** 2`` that is: below it the cutting costs more than it gives."""

Carry = TypeVar("Carry")
Body = Callable[[Carry, Any], tuple[Carry, Array]]


def run_in_chunks(
    body: Body[Carry], carry: Carry, sequences: Any, *, rows: int | None = None, remat: str = AUTO
) -> tuple[Carry, Array]:
    """Apply ``body`` to successive chunks of time.

    Args:
        body: maps ``(carry, chunk of sequences)`` to ``(carry, outputs (t, B, ...))`` for any number of steps
            t.
        carry: what the first chunk starts from.
        sequences: pytree of arrays ``(T, B, ...)``.
        rows: time x batch rows of a chunk at most; 0 for one chunk; None for the platform's default.
        remat: what to store for the backward pass, one of ``REMATS``; ``"auto"``: everything where one chunk
            holds the whole sequence and so fits the cache, else ``"dots"``.

    Returns:
        The last carry, and the outputs ``(T, B, ...)``. A remainder that fills no chunk runs as one shorter
        chunk.

    """
    length, batch = jax.tree.leaves(sequences)[0].shape[:2]
    if rows is None:
        rows = DEFAULT_ROWS.get(default_platform(), 0)
        if remat == "full":
            rows = min(rows, max(LEAST_ROWS, FULL_STEPS * batch))
    steps = max(1, rows // max(batch, 1)) if rows else length
    if remat == AUTO:
        remat = "none" if rows and steps >= length else "dots"
    if steps >= length:
        return _rematerialised(body, remat)(carry, sequences)
    steps = _without_remainder(length, steps)
    count = length // steps
    whole = count * steps
    chunks = jax.tree.map(lambda leaf: leaf[:whole].reshape(count, steps, *leaf.shape[1:]), sequences)
    # In a loop nothing can be merged with the forward pass, so no barrier has to prevent it.
    carry, outputs = lax.scan(_rematerialised(body, remat, prevent_cse=False), carry, chunks)
    outputs = outputs.reshape(whole, *outputs.shape[2:])
    if whole == length:
        return carry, outputs
    carry, rest = _rematerialised(body, remat)(carry, jax.tree.map(lambda leaf: leaf[whole:], sequences))
    return carry, jnp.concatenate([outputs, rest])


def _without_remainder(length: int, steps: int) -> int:
    """Return the largest number of steps a chunk, of those from half of ``steps``, that divides ``length``.

    A remainder is a second program to compile, and to cut it off copies all sequences. Without such a number,
    return ``steps``.
    """
    divisors = (n for n in range(steps, (steps + 1) // 2 - 1, -1) if length % n == 0)
    return next(divisors, steps)


def step_in_groups(body: Callable[..., Any], *arrays: Any, weights: int) -> Any:
    """Apply ``body`` to a few batch elements at a time, and join what it returns.

    A product of a few rows is too small for two cores, and after each of them the cores wait for each other.
    Groups that know nothing of each other run on a core each, through all layers.

    Args:
        body: maps arrays ``(b, ...)`` to a pytree of arrays ``(b, ...)``, each element alone, for any b.
        arrays: pytrees of arrays ``(B, ...)``.
        weights: ``n_layers * d_model ** 2``.

    Returns:
        ``body(*arrays)``.

    """
    batch = len(jax.tree.leaves(arrays)[0])
    rows = GROUP_ROWS.get(default_platform(), batch)
    if not rows < batch <= GROUPED_ROWS or weights < GROUPED_WEIGHTS:
        return body(*arrays)
    groups = [jax.tree.map(lambda x, i=i: x[i : i + rows], arrays) for i in range(0, batch, rows)]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *[body(*group) for group in groups])


def _rematerialised(body: Body[Carry], remat: str, *, prevent_cse: bool = True) -> Body[Carry]:
    if remat == "none":
        return body
    policy = jax.checkpoint_policies.save_only_these_names(STATES, GATES) if remat == "dots" else None
    return jax.checkpoint(body, policy=policy, prevent_cse=prevent_cse)
