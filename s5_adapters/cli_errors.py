"""Errors of whoever calls a command: one line, and no traceback."""

from collections.abc import Iterator
from contextlib import contextmanager


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
