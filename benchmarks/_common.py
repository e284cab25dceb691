"""Shared by every benchmark: the machine's name, interleaved medians, compile cost, the JSON record."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jaxlib

from s5_adapters.sweeps.machine import cpu_model, machine_slug, usable_cores

RESULTS = Path(__file__).parent / "results"


def memory_gib() -> float:
    """Return main memory in GiB (0 where the system does not say)."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return 0.0


def machine() -> dict[str, Any]:
    """Return what a figure depends on: hardware, versions, date, and how busy the machine was."""
    device = jax.devices()[0]
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return {
        "platform": device.platform,
        "device": device.device_kind if device.platform != "cpu" else cpu_model(),
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "memory_gib": memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "date": datetime.date.today().isoformat(),
        "load_average_at_start": load,
    }


def write_json(
    name: str,
    info: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    *,
    folder: Path = RESULTS,
    **extra: Any,
) -> Path:
    """Write ``<name>-<machine>.json`` into ``benchmarks/results/`` or another folder and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{machine_slug(info)}.json"
    given = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *given])
    record = {"benchmark": name, "command": command, "machine": dict(info), **extra}
    path.write_text(json.dumps({**record, "rows": list(rows)}, indent=2) + "\n")
    return path


def recorded_rows(
    name: str, info: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], key: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the rows of this machine's record that `rows` do not replace: a run may be done in pieces."""
    path = RESULTS / f"{name}-{machine_slug(info)}.json"
    recorded: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []
    measured = {tuple(row.get(field) for field in key) for row in rows}
    return [row for row in recorded if tuple(row.get(field) for field in key) not in measured]


def interleaved_medians(
    programs: Mapping[str, Callable[[], Any]],
    *,
    rounds: int = 5,
    min_sample_s: float = 0.02,
    wait_each: bool = True,
) -> dict[str, float]:
    """Measure the median seconds of one call of each program, in turns.

    Each round runs every program once, so that whatever else the machine does in that moment slows all of
    them alike: ratios of the medians mean something even on a busy machine. In use a program follows itself
    and finds its own caches and memory, so a call that is not timed comes before each sample of calls shorter
    than a second. A call shorter than `min_sample_s` is repeated until the sample is that long. Programs
    return JAX arrays; they are waited for, each, or with `wait_each=False` a sample's last: a device that
    queues its work then never idles.
    """
    calls_s: dict[str, float] = {}
    for name, program in programs.items():
        jax.block_until_ready(program())
        began = time.perf_counter()
        jax.block_until_ready(program())
        calls_s[name] = time.perf_counter() - began
    samples: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            repeats = max(1, round(min_sample_s / max(calls_s[name], 1e-7)))
            if len(programs) > 1 and calls_s[name] < 1.0:
                jax.block_until_ready(program())
            began = time.perf_counter()
            for _ in range(repeats):
                result = program()
                if wait_each:
                    jax.block_until_ready(result)
            jax.block_until_ready(result)
            samples[name].append((time.perf_counter() - began) / repeats)
    return {name: statistics.median(times) for name, times in samples.items()}


def compile_cost(function: Callable[..., Any], *arguments: Any) -> tuple[Callable[..., Any], float, int]:
    """Compile `function` for `arguments`: the compiled program, seconds to trace and compile, scratch bytes.

    Scratch is XLA's own count of temporary memory: what is alive beside arguments and results.
    """
    began = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    seconds = time.perf_counter() - began
    analysis = compiled.memory_analysis()
    return compiled, seconds, int(analysis.temp_size_in_bytes) if analysis is not None else 0


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format a plain-text table, columns right-aligned but the first."""
    cells = [list(header), *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        return "  ".join(
            c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )

    lines = [line(row) for row in cells]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def verdict(missed: Sequence[str]) -> int:
    """Print what is below its target and return the exit code: 1 if anything is."""
    print("\n" + ("\n".join(f"below target: {line}" for line in missed) or "every target is met"))
    return 1 if missed else 0


def announce(info: Mapping[str, Any]) -> None:
    """Say which machine the figures below come from."""
    load = info["load_average_at_start"]
    print(f"{info['device']}, {info['cores']} cores, jax {info['jax']}, load {load}\n", flush=True)
