"""Compiling in a quarter of the time, where a test asks for neither a program's bits nor its speed."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import jax
from jax._src import compiler

FUSION = {"xla_cpu_use_fusion_emitters": False}
"""Fused loops by XLA's older way, which takes a third of the time where nothing else is optimised."""


def quick_environment(devices: int = 1) -> dict[str, str]:
    """An environment for a process with so many devices, which compiles as `quick_compilation` does."""
    fusion = (f"--{name}={str(value).lower()}" for name, value in FUSION.items())
    environment = environment_of(devices)
    return environment | {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
        "XLA_FLAGS": " ".join((environment["XLA_FLAGS"], *fusion)),
    }


def environment_of(devices: int) -> dict[str, str]:
    """An environment for a process of its own, with so many virtual devices."""
    flags = os.environ.get("XLA_FLAGS", "")
    return os.environ | {"XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}"}


@contextmanager
def quick_compilation(options: Mapping[str, Any] = FUSION) -> Iterator[None]:
    """Compile in a quarter of the time, to slower code, unless a module is marked `full_compilation`."""
    before = jax.config.read("jax_disable_most_optimizations")
    get = compiler.get_compile_options

    def quick_options(*args: Any, **kwargs: Any) -> Any:
        compile_options = get(*args, **kwargs)
        compile_options.env_option_overrides = [*compile_options.env_option_overrides, *options.items()]
        return compile_options

    jax.config.update("jax_disable_most_optimizations", True)
    try:
        with mock.patch.object(compiler, "get_compile_options", quick_options):
            yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
