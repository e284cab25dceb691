"""Parts of every report of a sweep: its command, its machines, its tables, what failed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s5_adapters.sweeps.folder import read_commands, read_failures


def made_by(folder: Path) -> list[str]:
    """Return the commands that made a folder, where they are known."""
    commands = read_commands(folder)
    return ["Made by:", "", "```sh", *commands, "```", ""] if commands else []


def machines(results: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each machine, day and set of versions that results come from."""
    different = {json.dumps(result["machine"], sort_keys=True): result["machine"] for result in results}
    lines = []
    for info in different.values():
        versions = ", ".join(f"{name} {version}" for name, version in info["versions"].items())
        device = "" if info["platform"] == "cpu" else f"{info['device']}, "
        cores = "1 core" if info["cores"] == 1 else f"{info['cores']} cores"
        lines += [
            f"- {device}{cores} of {info['cpu']}, {info['system']}, Python {info['python']}, "
            f"{info['date']}: {versions}"
        ]
    return lines


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table's lines."""
    return [
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def failures(folder: Path) -> list[str]:
    """Return the section that names the cells without a result; nothing where every one has its result."""
    found = read_failures(folder)
    if not found:
        return []
    return ["## Cells without a result", "", *(f"- {name}: {why}" for name, why in found.items()), ""]
