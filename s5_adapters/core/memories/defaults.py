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


def complete_rates(
    name: str, lr_scales: Mapping[str, float] | None, dynamics_lr_scale: float | None
) -> tuple[Mapping[str, float], float]:
    """Return what multiplies the learning rate of a policy's parts and of its memory's dynamics.

    For policies whose rate is constant, or may be. Parts that are left out learn at the full rate.

    Args:
        name: a registered memory.
        lr_scales: by part; None leaves it to the memory.
        dynamics_lr_scale: of the dynamics besides; None leaves it to the memory.

    Raises:
        ValueError: an unknown memory; a scale of dynamics that it does not have.

    """
    scales = dict(memory_class(name).constant_rate_scales)
    own = scales.pop("dynamics", 1.0)
    dynamics_lr_scale = own if dynamics_lr_scale is None else dynamics_lr_scale
    require_dynamics(name, dynamics_lr_scale)
    return scales if lr_scales is None else lr_scales, dynamics_lr_scale


def require_dynamics(name: str, dynamics_lr_scale: float) -> None:
    """Refuse to scale the learning rate of dynamics that a memory does not have.

    Raises:
        ValueError: an unknown memory; a scale other than 1 with a memory without dynamics; one line.

    """
    if dynamics_lr_scale != 1 and not memory_class(name).dynamics:
        raise ValueError(f"dynamics_lr_scale: got {dynamics_lr_scale:g}, expected 1 with memory {name!r}")


def complete_as_formerly(name: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """Fill missing arguments with the constructor's own defaults, as versions before ``complete`` did.

    That is what runs and checkpoints mean that such a version wrote.

    Args:
        name: a memory. One that is not registered, or not yet, leaves the arguments as they are.
        said: some of its keyword arguments.

    Returns:
        What was said, and the constructor's defaults of whatever ``complete`` would add.

    Raises:
        ValueError: the memory refuses them.

    """
    if name not in memory_names():
        return dict(said)
    own = make_memory(name, **said).config
    return {field: own[field] for field in complete(name, said)} | dict(said)


def carry_over(name: str, config: Mapping[str, Any], to: str) -> dict[str, Any]:
    """Choose the arguments that stay when one memory is replaced by another.

    Width and depth stay. Any other stays if the new memory has an argument of that name and the value is not
    the default of the old.

    Args:
        name: the old memory.
        config: its arguments, said or completed.
        to: the new memory.

    Returns:
        The arguments of ``config`` that stay.

    Raises:
        ValueError: an unknown memory, or arguments that the old memory refuses.

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
