"""Names of parameters in format 1, which older files and checkpoints hold.

There encoder, memory and heads lay side by side, and each torso within its head.
"""

from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

T = TypeVar("T")

_MOVED: Final = {
    "heads/actor": "actor/Dense_0",
    "heads/critic": "critic/Dense_0",
    "heads/log_std": "log_std",
    "trunk/actor": "actor/MLP_0",
    "trunk/critic": "critic/MLP_0",
}


def name_in_format_1(name: str, separator: str = "/") -> str:
    """Return the name that a parameter had in format 1.

    Args:
        name: its path in format 2, possibly behind that of the whole parameters:
            ``params/trunk/actor/Dense_0/kernel`` was ``params/actor/MLP_0/Dense_0/kernel``. Any other name
            is returned as it is.
        separator: between the path's parts.

    """
    parts = name.split(separator)
    start = next((i for i, part in enumerate(parts[:-1]) if part in ("trunk", "heads")), None)
    if start is None:
        return name
    before, (whole, part), after = parts[:start], parts[start : start + 2], parts[start + 2 :]
    former = _MOVED.get(f"{whole}/{part}", part).split("/")
    return separator.join([*before, *former, *after])


def from_format_1(found: Mapping[str, T], names: Iterable[str], separator: str = "/") -> dict[str, T]:
    """Return what was found under names of format 1 under those of format 2, the rest as it is.

    Args:
        found: anything by name.
        names: what is looked for, by its names in format 2.
        separator: between the parts of a name.

    """
    now = {name_in_format_1(name, separator): name for name in names if name not in found}
    return {now.get(name, name): value for name, value in found.items()}
