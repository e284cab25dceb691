"""Where JAX will run what it compiles next."""

from importlib.util import find_spec

import jax


def default_platform() -> str:
    """Return the platform of JAX's default device: ``"cpu"``, ``"gpu"``, ..."""
    # JAX makes its options at run time, here and below.
    chosen = jax.config.jax_default_device  # type: ignore[attr-defined]
    if chosen is None:
        return str(jax.default_backend())
    return str(getattr(chosen, "platform", chosen))


def is_64_bit() -> bool:
    """Tell whether ``jax_enable_x64`` is on."""
    return bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]


def has_pallas() -> bool:
    """Tell whether the default device runs Pallas' Triton kernels: an NVIDIA GPU of compute capability 8.0 or
    more, and a JAX that brings Pallas.
    """
    if default_platform() not in ("gpu", "cuda"):
        return False
    capability = str(getattr(jax.devices()[0], "compute_capability", ""))
    digits = capability.split(".")
    is_recent = len(digits) == 2 and digits[0].isdecimal() and int(digits[0]) >= 8
    return is_recent and find_spec("jax.experimental.pallas.triton") is not None
