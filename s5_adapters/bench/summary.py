"""Groups of runs that are alike in everything but the seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from s5_adapters.bench.spec import Cell

Group = tuple[str, str, str, str]
"""Problem, device, framework, memory. A problem goes by its environment's id, and where a folder holds
several specs of one environment by the spec's digest too."""


def group(results: Sequence[dict[str, Any]]) -> dict[Group, list[dict[str, Any]]]:
    """Group results that differ in the seed alone, in the order of their seeds."""
    every = [(Cell.from_dict(result["cell"]), result) for result in results]
    specs: dict[str, set[str]] = {}
    for cell, _ in every:
        specs.setdefault(cell.spec.ppo.env_id, set()).add(cell.spec.digest)
    groups: dict[Group, list[dict[str, Any]]] = {}
    for cell, result in sorted(every, key=lambda pair: pair[0].seed):
        problem = cell.spec.ppo.env_id
        if len(specs[problem]) > 1:
            problem += f"-{cell.spec.digest}"
        groups.setdefault((problem, cell.device, cell.framework, cell.memory), []).append(result)
    return groups
