"""The machine that a figure comes from."""

from __future__ import annotations

import datetime
import os
import platform
import re
import resource
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("s5-adapters", "jax", "jaxlib", "flax", "torch", "stable-baselines3", "sb3-contrib", "ray")


def cpu_model() -> str:
    """Return the processor's name as the system gives it, or the architecture where it gives none."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), flags=re.MULTILINE)
        if found:
            return found.group(1).strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Count the cores this process may run on, which in a container is fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(device: str) -> dict[str, Any]:
    """Return hardware, versions and the date; never the host's name.

    Args:
        device: "cpu" or "gpu", where the learner computes.
    """
    kind = cpu_model() if device == "cpu" else jax.devices("gpu")[0].device_kind
    return {
        "platform": device,
        "device": kind,
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def machine_slug(info: Mapping[str, Any]) -> str:
    """Return a file name such as ``cpu-intel-xeon-2-cores``: the hardware, never the host's name."""
    hardware = re.sub(r"\((?:r|tm)\)|cpu|processor|@.*$", " ", str(info["device"]).lower())
    cores = [f"{info['cores']}-cores"] if info["platform"] == "cpu" else []
    return "-".join([info["platform"], *re.findall(r"[a-z0-9.]+", hardware), *cores])


def peak_memory_mib(device: str) -> dict[str, float]:
    """Return this process's largest resident memory and, on a GPU, the most that JAX and torch held."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kibibytes elsewhere
    peak = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20}
    if device == "gpu":
        held = (jax.devices("gpu")[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
        if "torch" in sys.modules:
            held += sys.modules["torch"].cuda.max_memory_reserved()
        peak["device"] = held / 2**20
    return peak


def available_bytes(device: str) -> int:
    """Return the bytes that a program may still take, as the system or the GPU says; else a terabyte."""
    if device == "gpu":
        stats = jax.devices("gpu")[0].memory_stats() or {}
        return int(stats.get("bytes_limit", 2**40) - stats.get("bytes_in_use", 0))
    meminfo = Path("/proc/meminfo")
    found = re.search(r"^MemAvailable:\s*(\d+) kB", meminfo.read_text(), re.M) if meminfo.exists() else None
    return 1024 * int(found.group(1)) if found else 2**40


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
