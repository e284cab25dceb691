"""Packages whose exports are imported when they are first asked for."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_exports(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a package's ``__getattr__`` (PEP 562).

    Args:
        package: the package's name.
        homes: the module that holds each exported name.

    """

    def get(name: str) -> Any:
        """Import a name from the module that holds it.

        Raises:
            AttributeError: nothing of that name is exported.
            ImportError: a package that it needs is not installed.
        """
        if name not in homes:
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}; it exports {', '.join(sorted(homes))}"
            )
        value = getattr(import_module(homes[name]), name)
        vars(import_module(package))[name] = value
        return value

    return get
