"""Environments of packages that only an extra installs: ids with a prefix, each prefix one adapter file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

_ADAPTERS = {"playground": "control", "xminigrid": "xland"}
"""The prefix of an id, which is also the module here that knows it, and the extra that it needs."""


def adapter_of(env_id: str) -> tuple[ModuleType, str] | None:
    """Return the module that makes an id, and the id without its prefix; None for ids without one.

    Nothing but the module itself is imported.
    """
    prefix, slash, name = str(env_id).partition("/")
    if not slash or prefix not in _ADAPTERS:
        return None
    return import_module(f"s5_envs.{prefix}"), name


def prefixes() -> dict[str, str]:
    """Return the prefixes of ids, as ``xminigrid/``, and the extra that each needs."""
    return {f"{prefix}/": extra for prefix, extra in _ADAPTERS.items()}


@contextmanager
def needed_by(what: str, extra: str) -> Iterator[None]:
    """Turn the failure of an import into one line that says how to install what is missing.

    Args:
        what: what needs it, an environment's id.
        extra: the extra that installs it.

    Raises:
        ValueError: a module is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{what}: {error.name} is not installed; pip install 's5-adapters[{extra}]'"
        ) from error
