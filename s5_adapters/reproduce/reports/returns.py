"""Returns of training: tables at equal steps and at equal seconds, with published numbers beside; plots."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from s5_adapters.reproduce.figures import Panel, plot_curves, plot_intervals, plot_lengths
from s5_adapters.reproduce.reports.lines import NOT_ALONE, REFERENCE, Line, by_task
from s5_adapters.reproduce.spec import Experiment
from s5_adapters.sweeps.curves import return_within
from s5_adapters.sweeps.markdown import table
from s5_adapters.sweeps.statistics import CONFIDENCE, Interval, estimate, median, stratified_estimate
from s5_envs.listing import registry_table

OVERALL = "all"


def body(experiment: Experiment, lines: Sequence[Line], folder: Path) -> list[str]:
    """Return the report's sections, line by line; figures go into `folder`."""
    return [
        *_how_to_read(experiment),
        *_table(experiment, lines),
        *_normalised(lines),
        *_figures(lines, folder),
        *sources(experiment),
    ]


def budget(lines: Sequence[Line]) -> float | None:
    """Choose the seconds to compare lines of one task at: the reference's median, or else the fastest's."""
    seconds = {line.entry.memory: median(line.values("seconds")) for line in lines}
    known = [value for value in seconds.values() if value is not None]
    return seconds.get(REFERENCE) or (min(known) if known else None)


def returns_within(line: Line, seconds: float) -> list[float]:
    """Return each run's final return as it was after so many seconds, where an episode had ended by then."""
    found = (
        return_within(curve["seconds"], curve["step"], curve["episode_return"], seconds)
        for curve in (run["curve"] for run in line.runs)
    )
    return [value for value in found if value is not None]


def normalised(lines: Sequence[Line], name: str = "final_return") -> dict[tuple[str, str], Interval]:
    """Estimate interquartile means over tasks and seeds of returns scaled from random (0) to best play (1).

    Returns:
        By group ("all" is over every group) and memory, of the tasks that every memory has, so that all are
        compared on the same ones; nothing where none of them is POPGym's.
    """
    memories = list(dict.fromkeys(line.entry.memory for line in lines))
    found = {
        (task, line.entry.memory): _scaled(task, line.values(name))
        for (task, _), group in by_task(lines).items()
        if task in _scores() and {line.entry.memory for line in group if line.values(name)} >= set(memories)
        for line in group
    }
    if not found:
        return {}
    groups = {line.entry.task: line.entry.group for line in lines}
    tables = {}
    for group in (*dict.fromkeys(groups[task] for task, _ in found), OVERALL):
        for memory in memories:
            values = [
                value
                for (task, m), value in found.items()
                if m == memory and group in (groups[task], OVERALL)
            ]
            tables[group, memory] = stratified_estimate(values)
    return tables


@cache
def _scores() -> dict[str, tuple[float, float]]:
    """Return the returns of random actions and of the best play known, by task."""
    return {row.env_id: (row.random_score, row.best_score) for row in registry_table()}


def _scaled(task: str, values: Sequence[float]) -> list[float]:
    lowest, best = _scores()[task]
    return [(value - lowest) / (best - lowest) for value in values]


def sources(experiment: Experiment) -> list[str]:
    """Return the section that says where published numbers are from; nothing where there are none."""
    if not experiment.published:
        return []
    return ["## Published numbers", "", *(f"- {p.column}: {p.source}" for p in experiment.published), ""]


def _how_to_read(experiment: Experiment) -> list[str]:
    percent = round(100 * CONFIDENCE)
    learned: dict[float, list[str]] = {}
    for task, bar in experiment.bars.items():
        learned.setdefault(bar, []).append(f"`{task}`")
    bars = "".join(
        f" From {bar:g} on these count as learned: {', '.join(ts)}." for bar, ts in learned.items()
    )
    return [
        "All memories of a task are trained for the same steps; the seconds are the median of training a "
        "seed, without compiling, then the most that a seed took with it. MMER is the mean over seeds, as "
        "published, ± the standard deviation. Final "
        f"returns are interquartile means over seeds with {percent} % bootstrap intervals; *fresh* is the "
        "mean return of the trained policies in new episodes. *At equal seconds* is the final return of "
        f"what was done in the median seconds of {REFERENCE}; an asterisk marks a memory that needs "
        "fewer, and is shown at its end. A learning rate that is annealed comes down over a memory's own "
        "steps: one that is slower is read there before its rate has." + bars,
        "",
    ]


def _table(experiment: Experiment, lines: Sequence[Line]) -> list[str]:
    bars = experiment.bars
    header = ["task", "memory", "setting", "parameters", "state", "seeds", "steps", "seconds"]
    is_scored = any(line.entry.task in _scores() for line in lines)
    header += ["with compiling", "MMER", "final return", *(["normalised"] if is_scored else [])]
    header += ["fresh", "at equal seconds"]
    header += [*(["seeds at the bar"] if bars else []), *(f"{p.column}" for p in experiment.published)]
    rows = []
    for (task, _), group in by_task(lines).items():
        seconds = budget(group)
        for line in group:
            final = line.values("final_return")
            reached = (
                f"{sum(value >= bars[task] for value in final)} of {len(line.runs)}" if task in bars else "-"
            )
            rows += [
                [
                    task,
                    line.entry.memory,
                    line.entry.setting,
                    f"{line.fact('parameters'):,}",
                    f"{line.fact('state_numbers'):,}",
                    str(len(line.runs)),
                    f"{line.fact('steps'):,}",
                    line.marked(median(line.values("seconds"))),
                    line.marked(line.seconds_in_all),
                    _mean(line.values("mmer")),
                    str(estimate(final)) if final else "-",
                    *([_normalised_return(task, final)] if is_scored else []),
                    _number(statistics.fmean(run["evaluation"]["mean"] for run in line.runs), ".3f"),
                    _within(line, seconds),
                    *([reached] if bars else []),
                    *(published.find(task, line.entry.memory) for published in experiment.published),
                ]
            ]
    return ["## Returns", "", *table(header, rows), ""]


def _normalised_return(task: str, final: Sequence[float]) -> str:
    return f"{estimate(_scaled(task, final)).value:.3f}" if final and task in _scores() else "-"


def _within(line: Line, seconds: float | None) -> str:
    values = [] if seconds is None else returns_within(line, seconds)
    if seconds is None or not values:
        return "-"
    own = median(line.values("seconds"))
    fewer = own is not None and own < seconds and line.entry.memory != REFERENCE
    return f"{estimate(values).value:.3f} in {seconds:,.0f} s" + ("*" if fewer else "")


def _normalised(lines: Sequence[Line]) -> list[str]:
    tables = normalised(lines)
    if len({task for task, _ in by_task(lines)}) < 2 or not tables:
        return []
    memories = list(dict.fromkeys(memory for _, memory in tables))
    rows = []
    for group in dict.fromkeys(group for group, _ in tables):
        for memory in memories:
            mine = [
                line for line in lines if line.entry.memory == memory and group in (line.entry.group, OVERALL)
            ]
            scores = [statistics.fmean(line.values("mmer")) for line in mine if line.values("mmer")]
            seconds = median([median(line.values("seconds")) for line in mine])
            alone = all(line.is_alone for line in mine)
            rows.append(
                [
                    group,
                    memory,
                    str(len(mine)),
                    str(tables[group, memory]),
                    _number(statistics.fmean(scores) if scores else None, ".3f"),
                    _number(seconds, ",.0f") + ("" if alone else NOT_ALONE),
                ]
            )
    return [
        "## Over tasks",
        "",
        "Normalised are final returns from random actions (0) to the best play known (1): interquartile "
        "means over tasks and seeds, with bootstrap intervals that draw seeds anew within each task (none "
        "for single seeds). MMER is the mean over tasks; the seconds are the median of a seed's training.",
        "",
        *table(["tasks", "memory", "number", "normalised", "MMER", "seconds"], rows),
        "",
    ]


def _figures(lines: Sequence[Line], folder: Path) -> list[str]:
    parts = ["## Plots", ""]
    for group in dict.fromkeys(line.entry.group for line in lines):
        mine = [line for line in lines if line.entry.group == group]
        panels = [
            Panel(" ".join(key), {line.entry.memory: [run["curve"] for run in line.runs] for line in some})
            for key, some in by_task(mine).items()
        ]
        for against, words in (("step", "environment steps"), ("seconds", "seconds of training")):
            name = f"{against}-{group}.png"
            plot_curves(panels, against, folder / name)
            parts += [f"![Mean episodic return against {words}, {group}]({name})"]
        found: Mapping[tuple[str, str], Interval] = {
            (" ".join(key), line.entry.memory): estimate(line.values("final_return"))
            for key, some in by_task(mine).items()
            for line in some
            if line.values("final_return")
        }
        plot_intervals(found, folder / f"final-{group}.png")
        parts += [f"![Final returns with intervals, {group}](final-{group}.png)"]
        placed = {
            (line.entry.position, f"{line.entry.memory} {line.entry.setting}"): estimate(
                line.values("final_return")
            )
            for line in mine
            if line.entry.position is not None and line.values("final_return")
        }
        if placed:
            plot_lengths({"final return": placed}, folder / f"length-{group}.png")
            parts += [f"![Final return against length, {group}](length-{group}.png)"]
    return [*parts, ""]


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}"


def _number(value: float | None, style: str) -> str:
    return "-" if value is None else format(value, style)
