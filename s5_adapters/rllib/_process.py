"""JAX's settings inside Ray's processes, made before JAX first computes there."""

from __future__ import annotations

import os

import jax
import ray

from s5_adapters.torch_bridge import settle_jax

__all__ = ["is_worker", "settle_process"]


def settle_process() -> None:
    """Settle JAX for torch (see `settle_jax`) and, in a Ray worker, keep it to what Ray gave the process.

    A Ray worker without an accelerator of its own computes on the CPU: Ray hides a GPU from nobody who asked
    for none, and every runner would reserve memory on it.
    """
    if is_worker() and not any(ray.get_runtime_context().get_accelerator_ids().values()):
        os.environ["JAX_PLATFORMS"] = "cpu"
        jax.config.update("jax_platforms", "cpu")
    settle_jax()


def is_worker() -> bool:
    """Tell whether Ray started this process to run tasks and actors."""
    return ray.is_initialized() and ray.get_runtime_context().worker.mode == ray.WORKER_MODE
