"""The option ``--import``: modules of the user's own, for what they register."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

__all__ = ["Command", "import_modules"]


@dataclass(frozen=True, kw_only=True)
class Command:
    """Options of every command that reads a run's configuration."""

    modules: tyro.conf.UseAppendAction[
        Annotated[tuple[str, ...], tyro.conf.arg(name="import", metavar="MODULE")]
    ] = ()
    """A module to import first, from the current folder too, that registers an algorithm, a memory or an
    environment of your own; may be given several times."""


def import_modules(names: Sequence[str]) -> None:
    """Import modules, from the current folder too, for what they register.

    Raises:
        ValueError: one line, where there is no module of that name, or one that it needs.
    """
    if names and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ValueError(f"import: {name}: {error}") from error
