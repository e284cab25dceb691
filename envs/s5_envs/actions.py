"""Checks of actions that come from outside, where a wrong one can still be named."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces


def check_actions(space: spaces.Space[Any], actions: object, num: int | None, name: str) -> np.ndarray:
    """Return actions of ``space`` as an array, int32 or the Box's type.

    A Box's bounds are not enforced: the environments clip, as their references do.

    Args:
        space: what one action must be.
        actions: ``(num, *space.shape)``, or ``space.shape`` where ``num`` is None.
        num: how many actions there should be, None for a single one.
        name: the environment's name, for messages.

    Raises:
        ValueError: for a wrong shape or type, a choice that does not exist, or a number that is not finite.
    """
    if not isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete)):
        raise ValueError(f"{name}: expected a Discrete, MultiDiscrete or Box space of actions, got {space}")
    single = () if space.shape is None else space.shape
    shape = single if num is None else (num, *single)
    what = "an action" if num is None else "actions"
    try:
        array = np.asarray(actions)
    except ValueError:
        raise ValueError(f"{name}: expected {what} of shape {shape}, got a ragged {actions!r}") from None
    if array.shape != shape:
        raise ValueError(f"{name}: expected {what} of shape {shape}, got {array.shape}")
    if isinstance(space, spaces.Box):
        if array.dtype.kind not in "fiu":
            raise ValueError(f"{name}: actions must be finite numbers, got {array.tolist()!r}")
        _refuse(~np.isfinite(array), array, num, f"{name}: actions must be finite numbers")
        return array.astype(space.dtype)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name}: actions must be integers, got {array.dtype} {array.tolist()!r}")
    sizes = space.nvec if isinstance(space, spaces.MultiDiscrete) else space.n
    _refuse((array < 0) | (array >= sizes), array, num, f"{name}: expected an action of {space}")
    return array.astype(np.int32)


def _refuse(wrong: np.ndarray, array: np.ndarray, num: int | None, message: str) -> None:
    """Raise if anything is ``wrong``, naming the first action that is and its place in the batch."""
    if not wrong.any():
        return
    if num is None:
        raise ValueError(f"{message}, got {array.tolist()!r}")
    lane = int(wrong.reshape(num, -1).any(1).argmax())
    raise ValueError(f"{message}, got {array[lane].tolist()!r} in environment {lane}")
