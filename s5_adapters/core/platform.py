"""Where JAX will run what it compiles next."""

import jax


def default_platform() -> str:
    """Return the platform of JAX's default device: ``"cpu"``, ``"gpu"``, ..."""
    chosen = jax.config.jax_default_device  # type: ignore[attr-defined]
    if chosen is None:
        return str(jax.default_backend())
    return str(getattr(chosen, "platform", chosen))
