"""Errors of whoever calls a command: one line, and no traceback."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UsageError(Exception):
    """A request that cannot be met; the message is one line."""


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn the one-line error of a check or a file into a ``UsageError``; any other is a bug and stays."""
    try:
        yield
    except (ValueError, OSError) as error:
        if "\n" in str(error):
            raise
        raise UsageError(str(error)) from error


def require_writable(name: str, path: Path, *, makes_folders: bool = False) -> None:
    """Refuse a file that cannot be written, before the work whose result it is to hold.

    Args:
        name: the option.
        path: the file.
        makes_folders: whoever writes it makes the folders above it.

    Raises:
        ValueError: one line, where it is a folder, there is none above it, or nothing can be written there.
    """
    folder = path.absolute().parent
    while makes_folders and not folder.exists():
        folder = folder.parent
    if path.is_dir():
        raise ValueError(f"{name}: {path} is a folder, expected the name of a file")
    if not folder.is_dir():
        raise ValueError(f"{name}: no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{name}: {folder} cannot be written in")
