"""Kinds of configuration fields: a type for readers and the command line, with the check of its values.

``gamma: Fraction = 0.99`` declares a float, and ``checked(config)`` holds it to [0, 1].
"""

import math
import numbers
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from flax.core import FrozenDict, freeze

from s5_adapters.core import checks
from s5_adapters.core.network import parts


def checked(config: object) -> dict[str, Any]:
    """Return the fields of a dataclass by name, checked by their kinds, and frozen where they came mutable.

    A ``Literal`` is checked against its choices. A field of any other type is taken as it is.

    Raises:
        ValueError: one line naming the field, the value that came and what was expected.
    """
    hints = get_type_hints(type(config), include_extras=True)
    names: Mapping[str, Any] = type(config).__dataclass_fields__  # type: ignore[attr-defined]
    return {name: _check(name, hints[name], getattr(config, name)) for name in names}


def to_json(value: Any) -> Any:
    """Return a field's value as JSON can hold it."""
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    return [to_json(item) for item in value] if isinstance(value, tuple) else value


def _check(name: str, hint: Any, value: Any) -> Any:
    if get_origin(hint) is Literal:
        return checks.one_of(name, value, get_args(hint))
    check: Callable[[str, Any], Any] = hint.__metadata__[0] if get_origin(hint) is Annotated else _as_it_is
    return check(name, value)


def _as_it_is(_: str, value: Any) -> Any:
    return _to_tuple(value)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name}: got {value!r}, expected a name")
    return value


def _mapping(name: str, value: object) -> FrozenDict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{name}: got {value!r}, expected a mapping of names to values")
    frozen: FrozenDict[str, Any] = freeze({key: _to_tuple(item) for key, item in value.items()})
    return frozen


def _whole(name: str, value: object) -> int:
    if isinstance(value, float) and value.is_integer():  # 15e6 is how people write it
        value = int(value)
    return checks.integer(name, value)


def _number(name: str, value: Any, *, low: float, high: float = math.inf, inclusive: bool = True) -> float:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    in_range = is_number and math.isfinite(value) and low <= value <= high
    if not in_range or (value == low and not inclusive):
        bounds = f"{'>=' if inclusive else '>'} {low:g}" + ("" if high == math.inf else f" and <= {high:g}")
        raise ValueError(f"{name}: got {value!r}, expected a number {bounds}")
    return float(value)


_positive = partial(_number, low=0.0, inclusive=False)


def _positive_or_none(name: str, value: Any) -> float | None:
    return None if value is None or value == "none" else _positive(name, value)


def _to_tuple(value: Any) -> Any:
    return tuple(_to_tuple(item) for item in value) if isinstance(value, list | tuple) else value


Name = Annotated[str, _text]
"""A string that is not empty."""
Options = Annotated[Mapping[str, Any], _mapping]
"""Names to JSON values, frozen; lists become tuples."""
Widths = Annotated[tuple[int, ...], checks.integers]
"""Integers of at least 1."""
Count = Annotated[int, _whole]
"""An integer of at least 1, which may be written ``15e6``."""
Flag = Annotated[bool, checks.boolean]
"""True or False."""
Positive = Annotated[float, _positive]
"""A finite number above 0."""
PositiveOrNone = Annotated[float | None, _positive_or_none]
"""The same, or None, for which TOML, which has no null, says ``"none"``."""
NonNegative = Annotated[float, partial(_number, low=0.0)]
"""A finite number of at least 0."""
Parts = Annotated[tuple[str, ...], parts.parts]
"""Parts of the network (``core.network.parts``)."""
PartScales = Annotated[Mapping[str, float], parts.part_scales]
"""Parts of the network to finite numbers above 0, frozen."""
Fraction = Annotated[float, partial(_number, low=0.0, high=1.0)]
"""A number from 0 to 1."""
