"""Recorded episodes: the file that ``s5-adapters clone`` learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple
from zipfile import is_zipfile

import numpy as np

from s5_adapters.core import Box, MultiDiscrete
from s5_adapters.purejax.problem import Problem

Array = np.ndarray[Any, Any]


class Episodes(NamedTuple):
    """Whole episodes, one after another; every array leads with the number of steps N."""

    obs: Array
    """``(N, *obs_shape)``, as the environment gave them."""
    actions: Array
    """``(N,)`` of a Discrete, else ``(N, components)``."""
    episode_starts: Array
    """``(N,)`` bool, True at each episode's first step; the first is True."""
    rewards: Array | None = None
    """``(N,)`` float32; with them the critic is taught the episodes' discounted returns."""
    action_mask: Array | None = None
    """``(N, K)`` bool, where the environment gives masks."""

    @property
    def bounds(self) -> Array:
        """Where each episode starts, and N: ``(episodes + 1,)``."""
        return np.append(np.flatnonzero(self.episode_starts), len(self.episode_starts))


def save_episodes(path: str | Path, episodes: Episodes) -> None:
    """Write episodes as a compressed ``.npz`` with an array for each field that is not None."""
    arrays = {name: value for name, value in episodes._asdict().items() if value is not None}
    np.savez_compressed(path, **arrays)


def load_episodes(path: str | Path, problem: Problem) -> Episodes:
    """Read episodes of an environment.

    Args:
        path: a ``.npz`` with ``obs``, ``actions``, ``episode_starts`` and perhaps ``rewards`` and
            ``action_mask``; nothing of it is unpickled.
        problem: the environment and the network that they are for.

    Raises:
        ValueError: the file cannot be read, or an array is missing, has another shape than the environment's
            spaces, or holds what is no action; one line that names it.

    """
    arrays = _read_arrays(path)
    for name in ("obs", "actions", "episode_starts"):
        if name not in arrays:
            raise ValueError(f"{path}: no array {name!r}, expected obs, actions and episode_starts")
    unknown = sorted(set(arrays) - set(Episodes._fields))
    if unknown:
        raise ValueError(f"{path}: array {unknown[0]!r}, expected some of {', '.join(Episodes._fields)}")
    action, starts = problem.action, arrays["episode_starts"].shape
    if len(starts) != 1 or not starts[0]:
        raise ValueError(f"{path}: episode_starts has shape {starts}, expected (N,) with N > 0 steps")
    components = {MultiDiscrete: lambda: (len(action.nvec),), Box: lambda: (len(action.low),)}  # type: ignore[union-attr]
    shapes = {
        "obs": (*starts, *problem.obs_shape),
        "actions": (*starts, *components.get(type(action), tuple)()),
        "episode_starts": starts,
        "rewards": starts,
        "action_mask": (*starts, action.num_inputs),
    }
    for name, array in arrays.items():
        if array.shape != shapes[name]:
            raise ValueError(f"{path}: {name} has shape {array.shape}, expected {shapes[name]}")
        if array.dtype.kind not in "biuf" or not (np.abs(array) <= np.finfo(np.float32).max).all():
            raise ValueError(f"{path}: {name} holds {array.dtype} that are no finite numbers of 32 bits")
    for name in {"episode_starts", "action_mask"} & arrays.keys():
        _require_whole(path, name, arrays[name], np.array(2), "0 or 1")
    if not arrays["episode_starts"][0]:
        raise ValueError(f"{path}: episode_starts begins with False, expected whole episodes")
    is_masked = problem.net.config.action_mask
    if is_masked and "action_mask" not in arrays:
        raise ValueError(f"{path}: no array 'action_mask', which the environment's observations have")
    if not isinstance(action, Box):
        choices = np.array(action.nvec if isinstance(action, MultiDiscrete) else action.n)
        _require_whole(path, "actions", arrays["actions"], choices, f"those of {action}")
        if is_masked:
            _require_allowed(path, arrays["actions"], arrays["action_mask"], np.atleast_1d(choices))
    return Episodes(
        obs=arrays["obs"] if arrays["obs"].dtype == np.uint8 else arrays["obs"].astype(np.float32),
        actions=arrays["actions"].astype(np.float32 if isinstance(action, Box) else np.int32),
        episode_starts=arrays["episode_starts"].astype(bool),
        rewards=arrays["rewards"].astype(np.float32) if "rewards" in arrays else None,
        action_mask=arrays["action_mask"].astype(bool) if is_masked else None,
    )


def _read_arrays(path: str | Path) -> dict[str, Array]:
    try:
        with open(path, "rb") as file:
            if not is_zipfile(file):
                raise ValueError("it is no zip file, expected what numpy.savez writes")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # of zipfile, zlib or numpy, for each way in which a file can be damaged
        told = (str(error).splitlines() or [type(error).__name__])[0]
        if "allow_pickle" in told:  # numpy's advice is to unpickle it
            told = "it holds Python objects, expected numbers"
        raise ValueError(f"{path}: not a readable .npz of arrays: {told}") from error


def _require_whole(path: str | Path, name: str, array: Array, bounds: Array, expected: str) -> None:
    """Refuse what is no whole number from 0 to below ``bounds``, one for each component."""
    is_choice = (array >= 0) & (array < bounds) & (array == np.floor(array))
    if not is_choice.all():
        step = int(np.argwhere(~is_choice)[0, 0])
        raise ValueError(f"{path}: {name} of step {step} is {array[step]}, expected {expected}")


def _require_allowed(path: str | Path, actions: Array, masks: Array, choices: Array) -> None:
    """Refuse an action that its step's mask forbids; where a component has nothing allowed all is."""
    first = np.cumsum(choices) - choices
    for chosen, start, size in zip(actions.reshape(len(actions), -1).T, first, choices, strict=True):
        mask = masks[:, start : start + size] != 0
        is_forbidden = mask.any(1) & ~mask[np.arange(len(mask)), chosen.astype(int)]
        if is_forbidden.any():
            step = int(is_forbidden.argmax())
            raise ValueError(
                f"{path}: actions of step {step} is {actions[step]}, which its action_mask forbids"
            )


def discounted_returns(episodes: Episodes, gamma: float) -> Array:
    """Return each step's discounted return to the end of its episode, ``(N,)`` float32.

    Raises:
        ValueError: the episodes have no rewards.

    """
    if episodes.rewards is None:
        raise ValueError("rewards: got None, expected episodes with rewards")
    returns, following = np.zeros(len(episodes.rewards), np.float32), 0.0
    ends = np.append(episodes.episode_starts[1:], True)
    for t in reversed(range(len(returns))):
        following = float(episodes.rewards[t]) + (0.0 if ends[t] else gamma * following)
        returns[t] = following
    return returns
