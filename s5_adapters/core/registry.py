"""Classes by name, the project's own imported when first asked for: memories, algorithms."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Generic, TypeVar

from s5_adapters.core.checks import nearest_names

T = TypeVar("T")
C = TypeVar("C", bound=type[Any])


class Registry(dict[str, type[T]], Generic[T]):
    """The classes that were registered, by name.

    Args:
        kind: what messages call one of them.
        built_in: the module that registers each of the project's own.
        hint: what a message about an unknown name ends with.

    """

    def __init__(self, kind: str, built_in: Mapping[str, str], hint: str = "") -> None:
        super().__init__()
        self._kind, self._built_in, self._hint = kind, built_in, hint

    def register(self, name: str) -> Callable[[C], C]:
        """Return a class decorator that makes a class known under ``name``, which becomes its ``name``.

        Raises:
            ValueError: the name is taken by another class.

        """

        def register(cls: C) -> C:
            known = self.get(name)
            if known is not None and known.__qualname__ != cls.__qualname__:
                raise ValueError(f"{self._kind} {name!r}: already registered by {known.__qualname__}")
            cls.name = name
            self[name] = cls
            return cls

        return register

    def names(self) -> tuple[str, ...]:
        """Return the names that ``find`` knows, sorted."""
        return tuple(sorted({*self._built_in, *self}))

    def find(self, name: str) -> type[T]:
        """Return the class registered under ``name``.

        Raises:
            ValueError: there is none; the message lists the names, the nearest first.

        """
        if isinstance(name, str) and name not in self and name in self._built_in:
            import_module(self._built_in[name])
        if not isinstance(name, str) or name not in self:
            known = nearest_names(name, self.names())
            raise ValueError(f"{self._kind}: got {name!r}, expected one of {known}{self._hint}")
        return self[name]
