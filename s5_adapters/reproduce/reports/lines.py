"""Results as the lines of a table: an entry with all its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from s5_adapters.reproduce.spec import Cell, Entry, Experiment

NOT_ALONE = "†"
REFERENCE = "s5"
"""The memory whose seconds the others are given too."""


class Line(NamedTuple):
    """An entry and what is known of it."""

    entry: Entry
    results: list[dict[str, Any]]
    """One of each cell."""

    @property
    def runs(self) -> list[dict[str, Any]]:
        """One of each seed, in the order of the seeds."""
        return sorted((run for result in self.results for run in result["runs"]), key=lambda run: run["seed"])

    def values(self, name: str) -> list[float]:
        """Return a number of each run, where there is one."""
        return [run[name] for run in self.runs if run[name] is not None]

    @property
    def seconds_in_all(self) -> float:
        """The most that a seed took with compiling, of which each seed of one program has a share."""
        found: list[float] = [
            run["seconds"] + result["compile_seconds"] / len(result["runs"])
            for result in self.results
            for run in result["runs"]
        ]
        return max(found)

    @property
    def is_alone(self) -> bool:
        """Whether its cells ran one at a time: else its seconds measure no speed."""
        return all(result["side_by_side"] == 1 for result in self.results)

    def marked(self, seconds: float | None) -> str:
        """Write seconds of this line, marked where a cell did not run alone."""
        return "-" if seconds is None else f"{seconds:,.0f}" + ("" if self.is_alone else NOT_ALONE)

    def fact(self, name: str) -> Any:
        """Return what all cells of a line share."""
        return self.results[0][name]


def read_lines(experiment: Experiment, results: Sequence[dict[str, Any]]) -> list[Line]:
    """Group results into lines, in the experiment's order of tasks and memories."""
    lines: dict[str, Line] = {}
    for result in results:
        entry = Cell.from_dict(result["cell"]).entry
        lines.setdefault(repr(entry), Line(entry, [])).results.append(result)
    order = [entry.label for scale in ("small", "paper") for entry in experiment.entries(scale)]
    place = {label: i for i, label in reversed(list(enumerate(order)))}
    return sorted(
        lines.values(), key=lambda line: (place.get(line.entry.label, len(place)), line.entry.label)
    )


def by_task(lines: Sequence[Line]) -> dict[tuple[str, str], list[Line]]:
    """Group lines by task and setting: those that may be compared."""
    groups: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        groups.setdefault((line.entry.task, line.entry.setting), []).append(line)
    return groups
