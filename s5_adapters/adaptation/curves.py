"""What several runs do with whole tasks, of the families that they were trained on and of those held out."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from s5_adapters.core import checks
from s5_adapters.core.files.weights import require_same_network
from s5_adapters.plot import group_runs
from s5_adapters.purejax import (
    Algorithm,
    Problem,
    RestoredPolicy,
    build_problem,
    read_config,
    restore_policy,
)
from s5_adapters.purejax.tasks import Tasks, play_tasks, require_trials
from s5_envs.in_context.many_tasks import Split
from s5_envs.registration import arguments

WINDOWS = 50
"""Windows of steps that a task is cut into, at most."""


class Curve(NamedTuple):
    """Means over tasks, and how sure they are: over the tasks of one run, over the runs of several."""

    mean: np.ndarray
    """``(points,)`` float64."""
    standard_error: np.ndarray
    """NaN where there is one task alone."""


class Adaptation(NamedTuple):
    """What one group of runs, alike but for the seed, does in one family."""

    label: str
    runs: tuple[str, ...]
    split: Split
    family: str
    by_trial: Curve
    """The return of each trial."""
    step: np.ndarray
    """``(windows,)`` int: the last step of each window, from 1."""
    by_step: Curve
    """The mean reward of a step in each window, over the tasks that are not over by then."""
    under_way: np.ndarray
    """``(windows,)`` float64: the share of tasks that reach each window."""


class Question(NamedTuple):
    """What is asked of every run."""

    num_tasks: int = 100
    """Tasks of each family."""
    num_trials: int | None = None
    """Trials of a task; None: as many as in training."""
    held_out: bool = False
    """Ask for the families that were held out too."""
    checkpoint: int | None = None
    """The checkpoint after this many updates; None: each run's newest that is whole."""
    seed: int = 0
    """Of tasks and actions."""
    deterministic: bool = False
    """Take the most likely action instead of sampling."""


class Environment(NamedTuple):
    """What the runs have in common."""

    env_id: str
    env_kwargs: dict[str, Any]


def ask(
    run_dirs: Sequence[Path], question: Question, *, report: Callable[[str], object] = warnings.warn
) -> tuple[Environment, list[Adaptation]]:
    """Play tasks with the policy of each run.

    Args:
        run_dirs: folders of runs on one environment; those alike but for the seed are one group.
        question: how many tasks of what kind.
        report: given a line for each checkpoint that was passed over, since it is cut short or changed.

    Returns:
        the environment, and a line for each group and family, the families trained on first.

    Raises:
        ValueError: one line, for runs of different environments, an environment without trials, one that has
            no held-out families or whose number of trials cannot be set, and what ``group_runs`` says.
    """
    checks.integer("episodes", question.num_tasks)
    checks.integer("seed", question.seed, minimum=0)
    groups = group_runs(run_dirs)
    configs = {run: read_config(run).training for run in run_dirs}
    environment = _common_environment(configs)
    problems = {
        split: {run: build_problem(replace(config, env_kwargs=kwargs)) for run, config in configs.items()}
        for split, kwargs in _splits(environment, question)
    }
    for by_run in problems.values():
        require_trials(by_run[run_dirs[0]])
    policies = {run: restore_policy(run, question.checkpoint, report=report) for run in run_dirs}
    played = {
        split: {run: _play(policies[run], problem, question) for run, problem in by_run.items()}
        for split, by_run in problems.items()
    }
    return environment, list(_adaptations(environment, groups, played))


def _common_environment(configs: dict[Path, Algorithm]) -> Environment:
    found = {
        run: Environment(config.env_id, config.to_dict()["env_kwargs"]) for run, config in configs.items()
    }
    (first, environment), *others = found.items()
    for run, other in others:
        if other != environment:
            raise ValueError(
                f"runs: got {first} on {_described(environment)} and {run} on {_described(other)}, "
                "expected runs of one environment"
            )
    return environment


def _described(environment: Environment) -> str:
    given = " ".join(f"{name}={value}" for name, value in environment.env_kwargs.items())
    return f"{environment.env_id} ({given})" if given else environment.env_id


def _splits(environment: Environment, question: Question) -> Iterator[tuple[Split, dict[str, Any]]]:
    """Yield the environment's arguments for each kind of family asked for."""
    env_id, kwargs = environment
    if question.num_trials is not None:
        checks.integer("trials", question.num_trials)
        kwargs = kwargs | {"num_trials": question.num_trials}
        _require(env_id, "num_trials", "trials: their number cannot be set")
    yield "training", kwargs
    if question.held_out:
        _require(env_id, "split", "held-out: no families are held out")
        yield (
            "held_out",
            {name: value for name, value in kwargs.items() if name != "tasks"} | {"split": "held_out"},
        )


def _require(env_id: str, argument: str, what: str) -> None:
    known = arguments(env_id)
    if known is not None and argument not in known:
        raise ValueError(
            f"{what}: {env_id} has no argument {argument!r}; it takes: {', '.join(known) or 'none'}"
        )


def _play(policy: RestoredPolicy, problem: Problem, question: Question) -> list[Tasks]:
    require_same_network(policy.problem.net.config, problem.net.config)
    return play_tasks(
        problem,
        policy.params,
        policy.obs_stats,
        question.num_tasks,
        seed=question.seed,
        deterministic=question.deterministic,
    )


def _adaptations(
    environment: Environment,
    groups: dict[str, list[Path]],
    played: dict[Split, dict[Path, list[Tasks]]],
) -> Iterator[Adaptation]:
    for split, by_run in played.items():
        for i, family in enumerate(tasks.family for tasks in next(iter(by_run.values()))):
            longest = max(tasks[i].rewards.shape[1] for tasks in by_run.values())
            ends = np.unique(np.linspace(0, longest, min(WINDOWS, longest) + 1).round().astype(int)[1:])
            for label, runs in groups.items():
                tasks = [by_run[run][i] for run in runs]
                windows = [_windows(part.rewards, ends) for part in tasks]
                yield Adaptation(
                    label=label.removeprefix(f"{environment.env_id}, "),
                    runs=tuple(str(run) for run in runs),
                    split=split,
                    family=family,
                    by_trial=curve_of([part.trial_returns for part in tasks]),
                    step=ends,
                    by_step=curve_of(windows),
                    under_way=np.isfinite(np.concatenate(windows)).mean(axis=0),
                )


def _windows(rewards: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return each task's mean reward of a step in each window, ``(tasks, windows)``, NaN after its end."""
    padded = np.pad(rewards, ((0, 0), (0, ends[-1] - rewards.shape[1])), constant_values=np.nan)
    return np.stack([_mean(part.T) for part in np.split(padded, ends[:-1], axis=1)], axis=1)


def curve_of(values: Sequence[np.ndarray]) -> Curve:
    """Average what runs do.

    Args:
        values: ``(tasks, points)`` of each run.

    Returns:
        Means, and the standard errors over runs; of a single run over its tasks.
    """
    means = np.stack([_mean(part) for part in values])
    sample = means if len(values) > 1 else np.asarray(values[0], np.float64)
    there = np.isfinite(sample).sum(axis=0)
    deviations = np.nansum(np.square(sample - _mean(sample)), axis=0)
    error = np.full(sample.shape[1], math.nan)
    np.divide(np.sqrt(deviations), np.sqrt(there * (there - 1.0)), out=error, where=there > 1)
    return Curve(_mean(means), error)


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean over rows of what is there; NaN where nothing is."""
    there = np.isfinite(values)
    count = there.sum(axis=0)
    total = np.where(there, values, 0.0).sum(axis=0, dtype=np.float64)
    mean = np.full(values.shape[1], math.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean
