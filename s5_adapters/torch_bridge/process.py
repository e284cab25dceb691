"""Settings that JAX reads once in a process, when it first computes, chosen for work beside torch."""

from __future__ import annotations

import os

import jax
from jax._src import xla_bridge

__all__ = ["settle_jax"]


def settle_jax() -> None:
    """Set what JAX reads once, when it first computes in this process, for work beside torch.

    - `XLA_PYTHON_CLIENT_PREALLOCATE=false` in the environment: JAX leaves most of a GPU's memory alone.
    - `jax_cpu_enable_async_dispatch` off: torch awaits every result anyway, and a program that runs where it
      is called, not on a thread of JAX's, finds the caller's memory in the cache (SB3 collects a fifth
      faster).

    Each stays as it is where the environment already says it (`XLA_PYTHON_CLIENT_PREALLOCATE`,
    `JAX_CPU_ENABLE_ASYNC_DISPATCH`), and both do once JAX has computed, since it reads them no more. Results
    are the same with either setting.

    Building a model calls this (`jax2torch`, `JaxModule`, the policies and environments of the adapters);
    importing this package does not. Where something else computes with JAX before a model is built, as
    importing gymnax or `s5_envs` does, call it first.
    """
    if xla_bridge.backends_are_initialized():
        return
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if "JAX_CPU_ENABLE_ASYNC_DISPATCH" not in os.environ:
        jax.config.update("jax_cpu_enable_async_dispatch", False)
