"""Checkpoints of a run: one folder per update, written whole or not at all (orbax), the last few kept."""

import errno
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from s5_adapters.core.files.format1 import from_format_1
from s5_adapters.purejax.logging import set_aside
from s5_adapters.purejax.words import from_words, to_words

State = TypeVar("State")
_DIGEST = "sha256"
_FILE_BYTES = 4096
"""What an array takes beside its bytes, about: a block of the disk."""


class CheckpointWriteError(RuntimeError):
    """A checkpoint could not be written; the message is one line, and what was there before is whole."""


class Checkpoints:
    """The checkpoints in one folder, each named by the number of updates done.

    A checkpoint is a flat mapping from names such as ``params.trunk.memory.log_dt`` to arrays; PRNG keys are
    kept as their words, and arrays of no elements, which orbax refuses, are left out. Arrays are whole, on
    however many devices they lay. Orbax writes into a temporary folder and renames it, so what is listed here
    was complete, and a digest over all of it (``sha256``) tells whether it still is. Parameters, and the
    optimiser's moments of them, are also found under the names of ``format1``.

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
        """Write ``state``, any pytree of arrays, then drop the oldest beyond ``keep``; returns its folder.

        Raises:
            CheckpointWriteError: it could not be written; nothing of it is left.
        """
        if update not in self.updates():
            arrays = {
                name: np.asarray(to_words(leaf)) for name, leaf in _named_leaves(state).items() if leaf.size
            }
            try:
                self._see_room(arrays)
                with self._manager(writes=True) as manager:
                    manager.save(update, args=ocp.args.StandardSave(arrays | {_DIGEST: _digest(arrays)}))
            except Exception as error:
                for half in self.directory.glob(f"{update}.orbax-checkpoint-tmp*"):
                    shutil.rmtree(half, ignore_errors=True)
                raise CheckpointWriteError(f"{self.path(update)}: {_one_line(error)}") from error
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
        return self._read(like, self._existing(update))

    def newest_whole(self, like: State) -> tuple[int, State, list[ValueError]]:
        """Read the newest checkpoint that is whole; nothing in the folder changes.

        Args:
            like: see ``restore``.

        Returns:
            Its update, the state, and what is wrong with each newer one.

        Raises:
            ValueError: as ``restore`` of the latest, where no older one can be read either.
        """
        update, (state,), damaged = _newest_whole([self], like)
        return update, state, [error for _, _, error in damaged]

    def restore_newest_whole(self, like: State) -> tuple[State, list[str]]:
        """Read the newest checkpoint that is whole, and set aside newer ones that are not.

        Args:
            like: see ``restore``.

        Returns:
            The state, and a line for each checkpoint that was cut short or changed, now named N.damaged.

        Raises:
            ValueError: as ``restore`` of the latest, where no older one can be read either.
        """
        (state,), lines = restore_newest_whole([self], like)
        return state, lines

    def set_aside(self, update: int) -> Path:
        """Rename a checkpoint, which then no longer counts, to N.damaged; returns its folder."""
        return set_aside(self.path(update))

    def _read(self, like: State, update: int) -> State:
        leaves = _named_leaves(like)
        expected = {name: jax.eval_shape(to_words, leaf) for name, leaf in leaves.items() if leaf.size}
        try:
            with self._manager(writes=False) as manager:
                found = {name: (m.shape, m.dtype) for name, m in manager.item_metadata(update).items()}
                digest = found.pop(_DIGEST, None)
                stored = from_format_1({name: name for name in found}, expected, separator=".")
                self._check(update, {name: found[stored[name]] for name in stored}, expected)
                like_stored = {stored[name]: leaf for name, leaf in expected.items()}
                if digest is not None:
                    like_stored[_DIGEST] = jax.ShapeDtypeStruct(*digest)
                arrays = manager.restore(update, args=ocp.args.StandardRestore(like_stored))
            if digest is not None and bytes(arrays.pop(_DIGEST)) != bytes(_digest(arrays)):
                raise ValueError("its numbers are not those that were written")
        except _MismatchError:
            raise
        except Exception as error:
            raise ValueError(f"{self.path(update)}: not a readable checkpoint: {_one_line(error)}") from error
        restored = [
            from_words(leaf, jnp.asarray(arrays[stored[name]]))
            if leaf.size
            else jnp.zeros(leaf.shape, leaf.dtype)
            for name, leaf in leaves.items()
        ]
        state: State = jax.tree.unflatten(jax.tree.structure(like), restored)
        return state

    def _see_room(self, arrays: dict[str, np.ndarray]) -> None:
        """Find a full disk before orbax does, whose threads say so many times and leave files behind.

        A run's folder that is gone is not made again.
        """
        self.directory.mkdir(exist_ok=True)
        needed = sum(array.nbytes + _FILE_BYTES for array in arrays.values())
        if shutil.disk_usage(self.directory).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

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

    def _manager(self, writes: bool) -> ocp.CheckpointManager:
        logging.getLogger("absl").setLevel(logging.ERROR)
        # Of several processes that train together one alone writes, and waits for no other.
        own = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(own, {own}, f"process{own}")
        several = {} if jax.process_count() == 1 else {"multiprocessing_options": alone}
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self.keep,
            create=False,
            read_only=not writes,
            enable_async_checkpointing=False,
            **several,
        )
        handler = ocp.StandardCheckpointHandler(**several)
        return ocp.CheckpointManager(self.directory, item_handlers=handler, options=options)


def restore_newest_whole(folders: Sequence[Checkpoints], like: State) -> tuple[list[State], list[str]]:
    """Read the newest update of which every folder has a whole checkpoint, and set aside newer damaged ones.

    Nothing is set aside before whole ones are found: where there are none, all stay as they are.

    Args:
        folders: of the runs that go on together; one for a run by itself.
        like: see ``Checkpoints.restore``.

    Returns:
        The states, one for each folder, and a line for each checkpoint set aside, now named N.damaged.

    Raises:
        ValueError: one line, where no update has a whole checkpoint everywhere: about the newest.
    """
    update, states, damaged = _newest_whole(folders, like)
    return states, [
        f"{error}; set aside as {folder.set_aside(broken).name}, going on from update {update}"
        for folder, broken, error in damaged
    ]


def _newest_whole(
    folders: Sequence[Checkpoints], like: State
) -> tuple[int, list[State], list[tuple[Checkpoints, int, ValueError]]]:
    """Return the newest update that is whole everywhere, its states, and the newer ones that are damaged."""
    damaged: list[tuple[Checkpoints, int, ValueError]] = []
    for update in sorted(set.intersection(*(set(folder.updates()) for folder in folders)), reverse=True):
        states: list[State] = []
        for folder in folders:
            try:
                states.append(folder.restore(like, update))
            except ValueError as error:
                damaged.append((folder, update, error))
        if len(states) == len(folders):
            return update, states, damaged
    raise damaged[0][2] if damaged else ValueError(f"{folders[0].directory}: no checkpoint there")


class _MismatchError(ValueError):
    pass


def _digest(arrays: dict[str, Any]) -> np.ndarray:
    """Return the SHA-256 of names, dtypes, shapes and bytes, as 32 numbers."""
    sum256 = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        sum256.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        sum256.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return np.frombuffer(sum256.digest(), np.uint8)


def _one_line(error: Exception) -> str:
    """Return the first line of an error, or for one of the system's what the system says."""
    number = re.search(r"os_error_code='(\d+)'", str(error))  # as tensorstore gives the system's
    if number:
        return os.strerror(int(number.group(1)))
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _named_leaves(tree: Any) -> dict[str, Any]:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in flat}


def _describe(shape: tuple[int, ...], dtype: Any) -> str:
    return f"{np.dtype(dtype).name}{list(shape)}"
