"""Spaces of gymnasium and gymnax as the network's configuration knows them.

Every adapter reads its framework's spaces here. They are told apart by their attributes, so that neither
package need be there.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from s5_adapters.core.network.config import SMALLEST_IMAGE
from s5_adapters.core.network.distributions import ActionSpec, Box, Discrete, MultiDiscrete

ACTION_MASK: Final = "action_mask"
"""Entry of a Dict observation that says which actions are allowed."""


def has_action_mask(space: Any) -> bool:
    """Tell whether observations come with a mask: a Dict with ``action_mask`` and something else."""
    parts = getattr(space, "spaces", None)
    return isinstance(parts, Mapping) and ACTION_MASK in parts and len(parts) > 1


def action_spec(space: Any) -> ActionSpec:
    """Describe an action space for ``ActorCriticConfig.action``.

    Args:
        space: gymnasium's or gymnax's. A Box of any shape is flattened; its bounds keep their dtype. A
            MultiBinary is a MultiDiscrete of two choices each.

    Raises:
        ValueError: another kind of space, actions not counted from 0, or a Box without room between its
            bounds; one line.

    """
    from_zero = not np.any(getattr(space, "start", 0))
    if hasattr(space, "nvec"):
        if from_zero and np.ndim(space.nvec) == 1:
            return MultiDiscrete(tuple(map(int, space.nvec)))
    elif hasattr(space, "n"):
        if from_zero and not space.shape:
            return Discrete(int(space.n))
        if tuple(space.shape) == (space.n,):  # MultiBinary
            return MultiDiscrete((2,) * int(space.n))
    elif hasattr(space, "low"):
        dtype = np.result_type(space.dtype, np.float32)
        low, high = (np.broadcast_to(np.asarray(b, dtype), space.shape) for b in (space.low, space.high))
        try:
            return Box(tuple(low.ravel().tolist()), tuple(high.ravel().tolist()))
        except ValueError as error:
            raise ValueError(f"action space: {error}") from None
    raise ValueError(
        f"action space: got {space}, expected Discrete or MultiDiscrete, both counted from 0, MultiBinary "
        "(these two with one axis), or Box"
    )


def observation_shape(space: Any) -> tuple[int, ...]:
    """Return the shape in which the network sees an observation: images stay, all else is flat.

    Args:
        space: a Box of gymnasium's or gymnax's.

    Raises:
        ValueError: another kind of space, or an image too small for the Nature CNN; one line.

    """
    if not hasattr(space, "low"):
        raise ValueError(f"observation space: got {space}, expected a Box")
    shape = tuple(map(int, space.shape))
    if len(shape) != 3:
        return (math.prod(shape),)
    if min(shape[:2]) < SMALLEST_IMAGE:
        raise ValueError(
            f"observation space: got images of {shape}, expected at least {SMALLEST_IMAGE} pixels a side"
        )
    return shape
