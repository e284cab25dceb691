"""JAX's settings inside Ray's processes, made before JAX first computes there."""

from __future__ import annotations

import os

import jax
import ray

__all__ = ["settle_jax"]


def settle_jax() -> None:
    """Keep JAX to what Ray gave this process.

    A Ray worker without an accelerator of its own computes on the CPU: Ray hides a GPU from nobody who asked
    for none, and every runner would reserve memory on it.
    """
    if _is_worker() and not any(ray.get_runtime_context().get_accelerator_ids().values()):
        os.environ["JAX_PLATFORMS"] = "cpu"
        jax.config.update("jax_platforms", "cpu")


def _is_worker() -> bool:
    return ray.is_initialized() and ray.get_runtime_context().worker.mode == ray.WORKER_MODE
