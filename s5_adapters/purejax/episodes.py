"""Recorded episodes: the file that ``s5-adapters clone`` learns from."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

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
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: not a readable .npz of arrays: {told}") from None
    for name in ("obs", "actions", "episode_starts"):
        if name not in arrays:
            raise ValueError(f"{path}: no array {name!r}, expected obs, actions and episode_starts")
    unknown = sorted(set(arrays) - set(Episodes._fields))
    if unknown:
        raise ValueError(f"{path}: array {unknown[0]!r}, expected some of {', '.join(Episodes._fields)}")
    action, steps = problem.action, len(arrays["episode_starts"])
    components = {MultiDiscrete: lambda: (len(action.nvec),), Box: lambda: (len(action.low),)}  # type: ignore[union-attr]
    shapes = {
        "obs": (steps, *problem.obs_shape),
        "actions": (steps, *components.get(type(action), tuple)()),
        "episode_starts": (steps,),
        "rewards": (steps,),
        "action_mask": (steps, action.num_inputs),
    }
    for name, array in arrays.items():
        if array.shape != shapes[name] or not steps:
            raise ValueError(f"{path}: {name} has shape {array.shape}, expected {shapes[name]}")
        if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
            raise ValueError(f"{path}: {name} holds {array.dtype} that are no finite numbers")
    if problem.net.config.action_mask and "action_mask" not in arrays:
        raise ValueError(f"{path}: no array 'action_mask', which the environment's observations have")
    episodes = Episodes(
        obs=arrays["obs"] if arrays["obs"].dtype == np.uint8 else arrays["obs"].astype(np.float32),
        actions=arrays["actions"].astype(np.float32 if isinstance(action, Box) else np.int32),
        episode_starts=arrays["episode_starts"].astype(bool),
        rewards=arrays["rewards"].astype(np.float32) if "rewards" in arrays else None,
        action_mask=arrays["action_mask"].astype(bool) if problem.net.config.action_mask else None,
    )
    if not episodes.episode_starts[0]:
        raise ValueError(f"{path}: episode_starts begins with False, expected whole episodes")
    if not isinstance(action, Box):
        choices = np.array(action.nvec if isinstance(action, MultiDiscrete) else action.n)
        if (episodes.actions < 0).any() or (episodes.actions >= choices).any():
            raise ValueError(
                f"{path}: actions from {episodes.actions.min()} to {episodes.actions.max()}, "
                f"expected those of {action}"
            )
    return episodes


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
