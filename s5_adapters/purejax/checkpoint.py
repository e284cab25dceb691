"""Checkpoints of a run: one folder per update, written whole or not at all (orbax), the last few kept."""

import logging
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from s5_adapters.core.files.format1 import from_format_1

State = TypeVar("State")


class Checkpoints:
    """The checkpoints in one folder, each named by the number of updates done.

    A checkpoint is a flat mapping from names such as ``params.trunk.memory.log_dt`` to arrays; PRNG keys are
    kept as their words, and arrays of no elements, which orbax refuses, are left out. Orbax writes into a
    temporary folder and renames it, so what is listed here is complete. Parameters, and the optimiser's
    moments of them, are also found under the names of ``format1``.

    Args:
        directory: created at the first ``save``.
        keep: how many of the last checkpoints stay.
    """

    def __init__(self, directory: Path, keep: int = 3):
        self.directory = Path(directory).absolute()
        self.keep = keep

    def path(self, update: int) -> Path:
        """Return the folder of one checkpoint."""
        return self.directory / str(update)

    def updates(self) -> list[int]:
        """Return the updates that there are checkpoints of, in order."""
        if not self.directory.is_dir():
            return []
        return sorted(int(path.name) for path in self.directory.iterdir() if path.name.isdigit())

    def latest(self) -> int | None:
        """Return the last of ``updates``, or None."""
        return max(self.updates(), default=None)

    def save(self, update: int, state: Any) -> Path:
        """Write ``state``, any pytree of arrays, then drop the oldest beyond ``keep``; returns its folder."""
        if update not in self.updates():
            arrays = {name: _words(leaf) for name, leaf in _named_leaves(state).items() if leaf.size}
            with self._manager(create=True) as manager:
                manager.save(update, args=ocp.args.StandardSave(arrays))
        return self.path(update)

    def restore(self, like: State, update: int | None = None) -> State:
        """Read a checkpoint into the structure of ``like``.

        Args:
            like: the state as ``jax.eval_shape`` gives it, or any state of the run.
            update: which one; None for the latest.

        Raises:
            ValueError: one line, where there is no such checkpoint, it cannot be read, or its arrays are not
                those of ``like`` (the first that differs is named).
        """
        update = self._existing(update)
        leaves = _named_leaves(like)
        expected = {name: jax.eval_shape(_words, leaf) for name, leaf in leaves.items() if leaf.size}
        try:
            with self._manager(create=False) as manager:
                found = {name: (m.shape, m.dtype) for name, m in manager.item_metadata(update).items()}
                stored = from_format_1({name: name for name in found}, expected, separator=".")
                self._check(update, {name: found[stored[name]] for name in stored}, expected)
                like_stored = {stored[name]: leaf for name, leaf in expected.items()}
                arrays = manager.restore(update, args=ocp.args.StandardRestore(like_stored))
        except _MismatchError:
            raise
        except Exception as error:
            message = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(f"{self.path(update)}: not a readable checkpoint: {message[0]}") from error
        restored = [
            _unwords(leaf, arrays[stored[name]]) if leaf.size else jnp.zeros(leaf.shape, leaf.dtype)
            for name, leaf in leaves.items()
        ]
        state: State = jax.tree.unflatten(jax.tree.structure(like), restored)
        return state

    def _existing(self, update: int | None) -> int:
        there = self.updates()
        if not there:
            raise ValueError(f"{self.directory}: no checkpoint there")
        if update is not None and update not in there:
            raise ValueError(f"{self.directory}: no checkpoint {update}, expected one of {there}")
        return there[-1] if update is None else update

    def _check(self, update: int, found: dict[str, Any], expected: dict[str, jax.ShapeDtypeStruct]) -> None:
        for name in sorted(found.keys() | expected.keys()):
            came = _describe(*found[name]) if name in found else "missing"
            wanted = (
                _describe(expected[name].shape, expected[name].dtype) if name in expected else "no such array"
            )
            if came != wanted:
                where = f"{self.path(update)}: a checkpoint of another configuration"
                raise _MismatchError(f"{where}: {name} is {came}, expected {wanted}")

    def _manager(self, create: bool) -> ocp.CheckpointManager:
        logging.getLogger("absl").setLevel(logging.ERROR)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self.keep, create=create, read_only=not create, enable_async_checkpointing=False
        )
        return ocp.CheckpointManager(
            self.directory, item_handlers=ocp.StandardCheckpointHandler(), options=options
        )


class _MismatchError(ValueError):
    pass


def _named_leaves(tree: Any) -> dict[str, Any]:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in flat}


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _words(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _unwords(like: Any, array: Any) -> Any:
    if not _is_key(like):
        return array
    implementation: list[Any] = []  # key_impl takes no ShapeDtypeStruct, but a tracer of one
    jax.eval_shape(lambda key: implementation.append(jax.random.key_impl(key)), like)
    return jax.random.wrap_key_data(array, impl=implementation[0])


def _describe(shape: tuple[int, ...], dtype: Any) -> str:
    return f"{np.dtype(dtype).name}{list(shape)}"
