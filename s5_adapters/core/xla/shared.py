"""Compiled programs that many models use, kept for as long as one of them does."""

import ctypes
import sys
import weakref
from collections.abc import Hashable
from typing import Any, ClassVar, Self

from jax._src import pjit
from jax._src.interpreters import partial_eval


class Shared:
    """An object that exists once for each class and key, and only while something holds it.

    Models of one architecture share their compiled programs through it; when the last of them goes, so do
    the programs and their memory. It is copied and pickled by its key, so that what holds it can be.

    Args:
        *key: what it is made from; equal keys give the same object.

    """

    _living: ClassVar[weakref.WeakValueDictionary[Hashable, Any]] = weakref.WeakValueDictionary()
    _gone: ClassVar[list[None]] = []

    def __init__(self, *key: Hashable) -> None:
        """Remember the key."""
        self._key = key
        weakref.finalize(self, Shared._gone.append, None)

    @classmethod
    def of(cls, *key: Hashable) -> Self:
        """Return the one object of this class and key, made if nothing holds one."""
        found: Self | None = Shared._living.get((cls, key))
        if found is None:
            if Shared._gone:
                Shared._gone.clear()
                _forget_traces()
            found = Shared._living[cls, key] = cls(*key)
        return found

    def __reduce__(self) -> tuple[Any, tuple[Hashable, ...]]:
        """Return the key, for copying and pickling."""
        return type(self).of, self._key


def _forget_traces() -> None:
    """Drop what JAX noted of functions that were traced inside others, programs that are gone among them.

    JAX keeps a trace of `jnp.add` for every pair of shapes that it ever met. What is
    compiled stays compiled; what is called with new shapes is traced anew. And what the C library keeps of
    freed memory goes back to the system where it can be told to.
    """
    for module, name in ((pjit, "_infer_params_cached"), (partial_eval, "trace_to_jaxpr")):
        clear = getattr(getattr(module, name, None), "cache_clear", None)
        if clear is not None:
            clear()
    if _trim is not None:
        _trim(0)


_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
