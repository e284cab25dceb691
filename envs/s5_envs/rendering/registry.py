"""Which function describes which environment's states."""

from __future__ import annotations

from collections.abc import Callable
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
    """Return the scene of one state, any pytree: the family's own, or else a table of its entries."""
    for module in ("cards", "boards", "physics", "mazes"):
        import_module(f"s5_envs.rendering.{module}")
    state = jax.tree.map(_as_numpy, jax.device_get(state))
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


def _as_numpy(leaf: Any) -> np.ndarray:
    is_key = isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def _fields(env: OwnEnvironment, state: PyTree) -> Tiles:
    """Return names and values of the state's entries, for an environment without a picture of its own."""
    entries: dict[str, list[np.ndarray]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        entries.setdefault(jax.tree_util.keystr(path[:1], simple=True), []).append(np.ravel(leaf))
    lines = []
    for name, leaves in entries.items():
        values = np.concatenate(leaves)
        shown = " ".join(f"{value:.4g}" for value in values[:8].astype(float))
        lines.append(f"{name} {shown}{' ...' if len(values) > 8 else ''}".strip())
    name = getattr(env, "name", type(env).__name__)  # one from elsewhere may have none
    lines = lines or ["(no state)"]
    return Tiles(name, tuple((Tile(""),) for _ in lines), tuple(lines))
