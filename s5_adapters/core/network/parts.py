"""Parts of the network by the names that users say: to freeze one, or let it learn more slowly."""

from collections.abc import Container, Iterable, Mapping
from typing import Any, Final

from flax.core import FrozenDict, freeze

from s5_adapters.core.checks import one_of, positive

PARTS: Final = ("encoder", "memory", "torsos", "heads")

_PART_OF: Final = {
    "encoder": "encoder",
    "critic_encoder": "encoder",
    "memory": "memory",
    "critic_memory": "memory",
    "actor": "torsos",
    "critic": "torsos",
}
"""By the trunk's own names."""


def part_of(name: str) -> str:
    """Return the part that a parameter belongs to.

    Args:
        name: its path in the network's parameters, ``"trunk/memory/B"`` or ``"heads/actor/kernel"``.

    """
    first, second = name.split("/")[:2]
    return "heads" if first == "heads" else _PART_OF[second]


def rate_scale(
    name: str, lr_scales: Mapping[str, float], dynamics_lr_scale: float, dynamics: Container[str]
) -> float:
    """Return what multiplies a parameter's learning rate.

    Args:
        name: its path in the network's parameters.
        lr_scales: by part; those left out have 1.
        dynamics_lr_scale: of the memory's dynamics, besides.
        dynamics: their names (``Memory.dynamics``).

    """
    part = part_of(name)
    is_dynamics = part == "memory" and name.rsplit("/", 1)[-1] in dynamics
    return lr_scales.get(part, 1.0) * (dynamics_lr_scale if is_dynamics else 1.0)


def parts(name: str, value: object) -> tuple[str, ...]:
    """Return a list or tuple of parts as a tuple, each once and in their order.

    Raises:
        ValueError: anything else, or a name that is no part's; one line.

    """
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise ValueError(f"{name}: got {value!r}, expected a list of {', '.join(PARTS)}")
    given = [one_of(f"{name}[{i}]", part, PARTS) for i, part in enumerate(value)]
    return tuple(part for part in PARTS if part in given)


def require_learning(name: str, frozen: tuple[str, ...], parts_of_parameters: Iterable[str]) -> None:
    """Refuse to freeze every parameter that there is: a part without layers has none.

    Args:
        name: the argument that says what is frozen.
        frozen: the parts that do not learn.
        parts_of_parameters: the part of each parameter.

    Raises:
        ValueError: nothing is left to learn; one line.

    """
    if set(parts_of_parameters) <= set(frozen):
        raise ValueError(f"{name}: got {', '.join(frozen)}, nothing is left to learn")


def part_scales(name: str, value: object) -> FrozenDict[str, Any]:
    """Return a mapping of parts to positive numbers, frozen.

    Raises:
        ValueError: anything else, or a name that is no part's; one line.

    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}: got {value!r}, expected a mapping of {', '.join(PARTS)} to numbers > 0")
    frozen: FrozenDict[str, Any] = freeze(
        {one_of(name, part, PARTS): positive(f"{name}[{part!r}]", scale) for part, scale in value.items()}
    )
    return frozen
