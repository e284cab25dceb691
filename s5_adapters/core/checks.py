"""Checks of configuration values, with messages that name the thing, what came and what was expected."""

import difflib
import math
import operator
from collections.abc import Iterable, Sequence


def nearest_names(name: object, known: Iterable[str]) -> str:
    """List the known names, the nearest to a mistyped one first."""
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=len(names), cutoff=0.4)
    return ", ".join([*near, *(n for n in names if n not in near)])


def integer(name: str, value: object, *, minimum: int = 1) -> int:
    """Return ``value`` as an int of at least ``minimum``; bools, floats and strings are refused."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or number < minimum:
        raise ValueError(f"{name}: got {value!r}, expected an integer >= {minimum}")
    return number


def positive(name: str, value: object) -> float:
    """Return ``value`` as a finite float above zero."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or value <= 0
    ):
        raise ValueError(f"{name}: got {value!r}, expected a finite number > 0")
    return float(value)


def number(name: str, value: object, *, minimum: float, maximum: float) -> float:
    """Return ``value`` as a float from ``minimum`` to ``maximum``; NaN is refused."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not minimum <= value <= maximum:
        raise ValueError(f"{name}: got {value!r}, expected a number from {minimum:g} to {maximum:g}")
    return float(value)


def boolean(name: str, value: object) -> bool:
    """Return ``value`` if it is a bool."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: got {value!r}, expected True or False")
    return value


def one_of(name: str, value: object, choices: Sequence[str]) -> str:
    """Return ``value`` if it is one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: got {value!r}, expected one of {nearest_names(value, choices)}")
    return value


def integers(name: str, value: object, *, minimum: int = 1) -> tuple[int, ...]:
    """Return a list or tuple of integers as a tuple, each at least ``minimum``."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name}: got {value!r}, expected a list of integers >= {minimum}")
    return tuple(integer(f"{name}[{i}]", v, minimum=minimum) for i, v in enumerate(value))
