"""Compiling in half the time, where a test asks what a program does and not for its bits or its speed."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax


@contextmanager
def quick_compilation() -> Iterator[None]:
    """Compile in half the time, to slower code; a whole module asks by `pytest.mark.quick_compilation`."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
