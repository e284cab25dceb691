"""Compiled programs that many modules use, kept for as long as one of them does."""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from typing import Any, ClassVar, Self

__all__ = ["Shared"]


class Shared:
    """An object that exists once for each class and key, and only while something holds it.

    Models of one architecture share their compiled programs through it; when the last of them goes, so do
    the programs, 30 to 50 MiB of them. It is copied and pickled by its key, so that what holds it can be.

    Args:
        *key: what it is made from; equal keys give the same object.
    """

    _living: ClassVar[weakref.WeakValueDictionary[Hashable, Any]] = weakref.WeakValueDictionary()

    def __init__(self, *key: Hashable) -> None:
        """Remember the key."""
        self._key = key

    @classmethod
    def of(cls, *key: Hashable) -> Self:
        """The one object of this class and key, made if nothing holds one."""
        found: Self | None = Shared._living.get((cls, key))
        if found is None:
            found = Shared._living[cls, key] = cls(*key)
        return found

    def __reduce__(self) -> tuple[Any, tuple[Hashable, ...]]:
        """For copying and pickling: the key."""
        return type(self).of, self._key
