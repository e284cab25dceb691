"""What a policy's memory is where nothing was said: one set of defaults for every ecosystem.

They were chosen by measurement (docs/choosing.md). The constructors' own defaults are others: the papers',
and what trainer and RLlib built of words that left something out before all three shared these.
"""

from collections.abc import Mapping
from typing import Any, Final

from s5_adapters.core.memories.memory import make_memory, memory_class, memory_names

SIZES: Final[Mapping[str, int]] = {"d_model": 64, "n_layers": 2}
"""Width and depth, which every memory has; ``Memory.policy_defaults`` gives what only some have."""


def complete(name: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a policy's memory: what was said, and the defaults of what was left out.

    Args:
        name: a registered memory.
        said: some of its keyword arguments.

    Raises:
        ValueError: an unknown memory, or a size that decides another default and is none.

    """
    sizes = {**SIZES, **said}
    return {**sizes, **memory_class(name).policy_defaults(sizes), **said}


def complete_as_formerly(name: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same arguments, with the constructor's own defaults for what ``complete`` would add: what
    runs and checkpoints mean that were written before there was ``complete``.

    A memory that is not registered, or not yet, leaves them as they are.

    Raises:
        ValueError: the memory refuses them.

    """
    if name not in memory_names():
        return dict(said)
    own = make_memory(name, **said).config
    return {field: own[field] for field in complete(name, said)} | dict(said)


def carry_over(name: str, config: Mapping[str, Any], to: str) -> dict[str, Any]:
    """Return what another memory takes over from the arguments of one: width, depth, and whatever both know
    and the one would not have had anyway.

    Args:
        name: the one memory.
        config: its arguments, said or completed.
        to: the other.

    Raises:
        ValueError: an unknown memory, or arguments that the one refuses.

    """

    def is_default(field: str) -> bool:
        rest = {other: value for other, value in config.items() if other != field}
        return bool(make_memory(name, **complete(name, rest)).config[field] == config[field])

    known = memory_class(to).__dataclass_fields__
    make_memory(name, **complete(name, config))
    return {
        field: value
        for field, value in config.items()
        if field in known and (field in SIZES or not is_default(field))
    }
