"""Which function describes which environment's states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from typing import Any, TypeVar

import jax
import numpy as np

from s5_envs.base import OwnEnvironment, RenderMode
from s5_envs.interface import PyTree
from s5_envs.rendering.scenes import Scene, Tile, Tiles

Describe = Callable[[Any, Any], Scene]
_Function = TypeVar("_Function", bound=Callable[..., Scene])

_describers: dict[type, Describe] = {}


def renders(*kinds: type[OwnEnvironment]) -> Callable[[_Function], _Function]:
    """Register the decorated ``describe(env, state) -> scene`` for environments of these classes.

    The state that it is given is unbatched and made of numpy arrays.
    """

    def register(function: _Function) -> _Function:
        _describers.update(dict.fromkeys(kinds, function))
        return function

    return register


def describe(env: OwnEnvironment, state: PyTree) -> Scene:
    """Return the scene of one state: the family's own, or else a table of the state's fields."""
    for module in ("cards", "boards", "physics", "mazes"):
        import_module(f"s5_envs.rendering.{module}")
    state = jax.tree.map(np.asarray, jax.device_get(state))
    for kind in type(env).__mro__:
        if kind in _describers:
            return _describers[kind](env, state)
    return _fields(env, state)


def render_state(
    env: OwnEnvironment, state: PyTree, params: PyTree = None, mode: RenderMode = "ansi"
) -> str | np.ndarray:
    """Draw one (unbatched) state of an unwrapped environment.

    Args:
        env: the environment.
        state: its state, without a leading batch axis.
        params: the environment's parameters.
        mode: ``"ansi"`` for a string, ``"rgb_array"`` for ``(height, width, 3)`` uint8. The picture's size is
            the same for all states of an environment.

    Raises:
        ValueError: for another mode, or a batch of states.
    """
    if mode not in ("ansi", "rgb_array"):
        raise ValueError(f"render: unknown mode {mode!r}; expected 'ansi' or 'rgb_array'")
    if np.ndim(state.time) != 0:
        raise ValueError(f"render: expected one state, got a batch of {np.shape(state.time)}")
    scene = describe(env, state)
    return scene.to_text() if mode == "ansi" else scene.to_image()


def _fields(env: OwnEnvironment, state: PyTree) -> Tiles:
    """Return names and values of the state's fields, for an environment without a picture of its own."""
    lines = []
    for f in fields(state):
        leaves = [np.ravel(leaf) for leaf in jax.tree.leaves(getattr(state, f.name))]
        values = np.concatenate(leaves) if leaves else np.zeros(0)
        shown = " ".join(f"{value:.4g}" for value in values[:8].astype(float))
        lines.append(f"{f.name} {shown}{' ...' if len(values) > 8 else ''}")
    return Tiles(env.name, tuple((Tile(""),) for _ in lines), tuple(lines))
