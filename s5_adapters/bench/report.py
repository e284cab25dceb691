"""A sweep as Markdown and plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s5_adapters.bench.figures import plot_curves, plot_throughput
from s5_adapters.bench.spec import FRAMEWORKS, OWN
from s5_adapters.bench.summary import Group, group
from s5_adapters.core.files.weights import write_whole
from s5_adapters.sweeps.folder import read_results
from s5_adapters.sweeps.markdown import failures, machines, made_by, table
from s5_adapters.sweeps.statistics import CONFIDENCE, estimate, median

REPORT_NAME = "report.md"
NAMES = {
    "purejax": "jitted trainer",
    "sb3": "SB3 RecurrentPPO",
    "sb3-segments": "SB3 S5RecurrentPPO",
    "rllib": "RLlib",
}
HEADER = (
    "framework",
    "memory",
    "parameters",
    "seeds",
    "steps/s",
    "collecting",
    "updating",
    "compiling s",
    "s to threshold",
    "reached",
    "final return",
    "peak MiB",
)


def write_report(folder: Path) -> Path:
    """Write `report.md` and the plots into the folder of the runs; return the report's path.

    Raises:
        ValueError: one line, where the folder holds no results.
    """
    results = read_results(folder)
    groups = dict(sorted(group(results).items(), key=lambda item: _order(item[0])))
    parts = [*_head(folder, results)]
    for problem in dict.fromkeys(key[0] for key in groups):
        mine = {key: runs for key, runs in groups.items() if key[0] == problem}
        parts += _problem(folder, problem, mine)
    parts += _differences(results)
    parts += failures(folder)
    write_whole(folder / REPORT_NAME, ("\n".join(parts).rstrip() + "\n").encode())
    return folder / REPORT_NAME


def _head(folder: Path, results: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["# One model, three ecosystems", ""]
    lines += made_by(folder)
    lines += machines(results)
    if not any(result["cell"]["device"] == "gpu" for result in results):
        lines += ["- a GPU: not yet measured"]
    percent = round(100 * CONFIDENCE)
    return [
        *lines,
        "",
        "Steps per second are of environment steps, from the median update, compiling left out: over "
        "everything, while collecting, while updating. Seconds to the threshold are training time without "
        "compiling, the median over the seeds that reached it. The final return is the interquartile mean "
        f"over seeds of the mean return in the last tenth of training, with a {percent} % bootstrap "
        "interval where there are several. Peak memory is that of the cell's process, imports and compiled "
        "programs included and Ray's own processes left out, plus what was held on the GPU if there is one.",
        "",
    ]


def _problem(folder: Path, problem: str, groups: dict[Group, list[dict[str, Any]]]) -> list[str]:
    spec = next(iter(groups.values()))[0]["cell"]["spec"]
    memory = spec["memory_config"]
    lines = [
        f"## {problem}",
        "",
        f"{spec['total_steps']:,} steps in {spec['num_envs']} environments x {spec['num_steps']} steps, "
        f"{spec['num_epochs']} epochs of {spec['num_minibatches']} minibatches; memories of "
        f"{memory['n_layers']} layers, {memory['d_model']} wide; threshold {spec['threshold']:g}.",
        "",
        *table(HEADER, [_row(key, runs) for key, runs in groups.items()]),
    ]
    if not any(key[1] == "gpu" for key in groups):
        lines += ["| any, on a GPU |" + " not yet measured |" + " |" * (len(HEADER) - 2)]
    lines += ["", "Final returns, seed by seed:", ""]
    lines += [f"- {_label(key)}: {_by_seed(runs)}" for key, runs in groups.items()]
    by_label = {_label(key): runs for key, runs in groups.items()}
    figures = {
        f"throughput-{problem}.png": "Environment steps per second",
        f"steps-{problem}.png": "Mean episodic return against environment steps",
        f"seconds-{problem}.png": "Mean episodic return against seconds of training",
    }
    throughput, steps, seconds = (folder / name for name in figures)
    plot_throughput(by_label, throughput)
    plot_curves(by_label, "step", steps)
    plot_curves(by_label, "seconds", seconds)
    return [*lines, "", *(f"![{text}]({name})" for name, text in figures.items()), ""]


def _row(key: Group, runs: Sequence[dict[str, Any]]) -> list[str]:
    speeds = {
        part: median([run["steps_per_second"].get(part) for run in runs])
        for part in ("total", "collect", "update")
    }
    seconds = [run["threshold"]["seconds"] for run in runs]
    reached = sum(second is not None for second in seconds)
    final = [run["final_return"] for run in runs if run["final_return"] is not None]
    return [
        NAMES[key[2]] + ("" if key[1] == "cpu" else " (GPU)"),
        key[3],
        f"{runs[0]['parameters']:,}",
        str(len(runs)),
        *(_number(speeds[part], ",.0f") for part in ("total", "collect", "update")),
        _number(median([run["compile_seconds"] for run in runs]), ".1f"),
        _number(median(seconds), ".1f"),
        f"{reached} of {len(runs)}",
        _final(final),
        " + ".join(
            _number(median([run["peak_memory_mib"][where] for run in runs]), ",.0f")
            for where in runs[0]["peak_memory_mib"]
        ),
    ]


def _final(returns: Sequence[float]) -> str:
    return str(estimate(returns)) if returns else "-"


def _differences(results: Sequence[dict[str, Any]]) -> list[str]:
    found: dict[str, set[str]] = {}
    for result in results:
        for difference in result["differences"]:
            found.setdefault(difference, set()).add(NAMES[result["cell"]["framework"]])
    return [
        "## What is not the same",
        "",
        "All cells of a spec, memory and seed start from the same weights, which each checks (own-lstm, the "
        "framework's own policy, aside), in the same environment code, with the same hyperparameters, but:",
        "",
        *(f"- {', '.join(sorted(names))}: {text}" for text, names in found.items()),
        "- every framework draws actions and shuffles minibatches from random numbers of its own",
        "",
    ]


def _by_seed(runs: Sequence[dict[str, Any]]) -> str:
    return ", ".join(_number(run["final_return"], ".3f") for run in runs)


def _label(key: Group) -> str:
    return f"{NAMES[key[2]]}, {key[3]}" + ("" if key[1] == "cpu" else " (GPU)")


def _order(key: Group) -> tuple[Any, ...]:
    problem, device, framework, memory = key
    return problem, device, FRAMEWORKS.index(framework), memory != "s5", memory == OWN, memory


def _number(value: float | None, style: str) -> str:
    return "-" if value is None else format(value, style)
