"""Scaling: a table and a plot of seconds and bytes against length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s5_adapters.reproduce.figures import plot_lengths
from s5_adapters.reproduce.reports.lines import Line
from s5_adapters.reproduce.spec import Experiment
from s5_adapters.sweeps.markdown import table
from s5_adapters.sweeps.statistics import Interval

MEASURES = {
    "training_ns_per_step": "training, ns per step",
    "scratch_bytes": "training, bytes of scratch",
    "acting_us": "acting, µs per step",
    "state_bytes": "acting, bytes of a sequence's state",
}
FLAT_FROM = 1024


def body(experiment: Experiment, lines: Sequence[Line], folder: Path) -> list[str]:
    """Return the report's sections, line by line; figures go into `folder`."""
    header = ["memory", "setting", "length", "sequences", "parameters", "training s", "ns per step"]
    header += ["scratch MiB", "acting µs", "state bytes", "compiling s"]
    in_order = sorted(
        lines, key=lambda line: (line.entry.setting, line.entry.memory, line.entry.position or 0)
    )
    rows = [_row(line, line.results[0]) for line in in_order]
    plot_lengths(
        {
            words: {
                (line.entry.position or 0, line.entry.memory): Interval(
                    float(value), float("nan"), float("nan")
                )
                for line in in_order
                if (value := line.results[0].get(name)) is not None
            }
            for name, words in MEASURES.items()
        },
        folder / "scaling.png",
        logarithmic=True,
    )
    return [
        "## Seconds and bytes",
        "",
        *table(header, rows),
        "",
        *_flatness(in_order),
        "![Seconds and bytes against length](scaling.png)",
        "",
    ]


def flatness(lines: Sequence[Line]) -> dict[str, float]:
    """Return, by memory, the largest over the smallest training time per step, from `FLAT_FROM` on."""
    times: dict[str, list[float]] = {}
    for line in lines:
        if (line.entry.position or 0) >= FLAT_FROM and line.results[0]["fits"]:
            times.setdefault(line.entry.memory, []).append(line.results[0]["training_ns_per_step"])
    return {memory: max(values) / min(values) for memory, values in times.items() if len(values) > 1}


def _flatness(lines: Sequence[Line]) -> list[str]:
    found = flatness(lines)
    if not found:
        return []
    ratios = ", ".join(f"{memory} {ratio:.2f}" for memory, ratio in found.items())
    return [f"Training time per step, largest over smallest from {FLAT_FROM:,} steps on: {ratios}.", ""]


def _row(line: Line, result: dict[str, Any]) -> list[str]:
    work = line.entry.work
    facts = [line.entry.memory, line.entry.setting, f"{work['length']:,}", str(work["batch"])]
    facts.append(f"{result['parameters']:,}")
    scratch = f"{result['scratch_bytes'] / 2**20:,.1f}"
    if not result["fits"]:
        room = f"does not fit into {result['room_bytes'] / 2**30:.0f} GiB"
        return [
            *facts,
            room,
            "-",
            scratch,
            "-",
            f"{result['state_bytes']:,}",
            f"{result['compile_seconds']:.1f}",
        ]
    return [
        *facts,
        f"{result['training_seconds']:.3f}",
        f"{result['training_ns_per_step']:,.0f}",
        scratch,
        f"{result['acting_us']:,.0f}",
        f"{result['state_bytes']:,}",
        f"{result['compile_seconds']:.1f}",
    ]
