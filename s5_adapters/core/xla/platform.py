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
    more, and a JAX that brings them.
    """
    return _compute_capability() >= 8 and find_spec("jax.experimental.pallas.triton") is not None


def has_mosaic() -> bool:
    """Tell whether the default device runs the Mosaic GPU kernels: an NVIDIA GPU of compute capability 9
    (Hopper) or 10 (Blackwell), and a JAX that brings them. Later ones, for desktops, have less than half of
    the shared memory.
    """
    return _compute_capability() in (9, 10) and find_spec("jax.experimental.pallas.mosaic_gpu") is not None


def _compute_capability() -> int:
    """Return the major number of the default GPU's compute capability, 0 if that is no NVIDIA GPU."""
    if default_platform() not in ("gpu", "cuda"):
        return 0
    digits = str(getattr(jax.devices()[0], "compute_capability", "")).split(".")
    return int(digits[0]) if len(digits) == 2 and digits[0].isdecimal() else 0
