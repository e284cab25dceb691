"""Flags and states as `MlpLstmPolicy` takes them, in any shape and type, or one clear line."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch as th

__all__ = ["flags", "numbers", "state_pair"]


def flags(episode_starts: th.Tensor, count: int) -> th.Tensor:
    """Read flags of any shape and dtype, one for each of `count` observations, as float32 `(count,)`.

    Raises:
        ValueError: another number of flags.
    """
    if episode_starts.shape == (count,) and episode_starts.dtype is th.float32:
        return episode_starts
    if episode_starts.numel() != count:
        raise ValueError(
            f"episode_starts has shape {tuple(episode_starts.shape)}, expected one flag for each of the "
            f"{count} observations: ({count},)"
        )
    return episode_starts.reshape(-1).to(th.float32)


def numbers(name: str, value: Any) -> np.ndarray:
    """Return a number, an array, a tensor or nested lists of them as float32.

    Raises:
        ValueError: anything else, or for flags a NaN.
    """
    try:
        array = np.asarray(value.detach().cpu() if isinstance(value, th.Tensor) else value, dtype=np.float32)
    except (TypeError, ValueError):
        told = " ".join(repr(value).split())
        raise ValueError(f"{name} is {told:.80}, expected an array of numbers") from None
    if np.isnan(np.add.reduce(array, axis=None)) and np.isnan(array).any():  # a sum takes half the time
        raise ValueError(f"{name} is or holds {'None' if value is None else 'NaN'}, expected numbers")
    return array


def state_pair(state: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return a recurrent state as its two float32 arrays.

    Args:
        state: a tuple, a list or an array of two parts.

    Raises:
        ValueError: another number of parts, or parts that are no arrays.
    """
    if not hasattr(state, "__len__") or len(state) != 2:
        raise ValueError(
            f"state is {type(state).__name__} of {len(state) if hasattr(state, '__len__') else 'no'} parts, "
            "expected the pair of arrays that predict returned"
        )
    first, second = (numbers(f"state[{i}]", part) for i, part in enumerate(state))
    return first, second
