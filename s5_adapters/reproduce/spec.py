"""Experiments as data: entries, which are run with several seeds, and the cells that run them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, Final, Literal, Self

from flax.core import FrozenDict

from s5_adapters.core import checks, make_memory
from s5_adapters.core.memories.defaults import complete
from s5_adapters.core.memories.matching import count_params, match_params
from s5_adapters.presets import read_preset
from s5_adapters.purejax import Algorithm, PPOConfig
from s5_adapters.purejax.algorithms.algorithm import algorithm_class
from s5_adapters.reproduce.published import Published

Scale = Literal["small", "paper"]
SECONDS_OF_S5: Final = "seconds of s5"
"""The setting of entries that `for_seconds_of_s5` made."""
LAYERS_BESIDE_S5: Final[Mapping[Scale, int]] = {"small": 2, "paper": 1}
"""Of other memories in experiments whose S5 is deep; the published GRU and LSTM have one."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of an experiment's table.

    Attributes:
        task: what is to be learned or measured.
        memory: the label of the memory, its name in the registry and perhaps an ablation.
        setting: which hyperparameters: entries of one task and setting differ in the memory alone.
        runner: module of ``reproduce.runners`` that runs it.
        work: what that module takes, as JSON can hold it.
        group: tasks of a group share a figure.
        position: the task's place on an axis, where tasks differ in a length.
        seeds: the most that it is run with; None sets no limit.
    """

    task: str
    memory: str
    setting: str
    runner: str
    work: Mapping[str, Any]
    group: str = ""
    position: int | None = None
    seeds: int | None = None

    @property
    def label(self) -> str:
        """As ``--only`` takes it."""
        return f"{self.task}/{self.memory}/{self.setting}"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


@dataclasses.dataclass(frozen=True)
class Cell:
    """An entry with one seed, or with several that are trained in one program, in a process of its own."""

    entry: Entry
    seeds: tuple[int, ...]
    device: str

    @property
    def name(self) -> str:
        """A file name, different for cells that differ in anything, and the same in later versions."""
        known = self.to_dict()
        if "config" in self.entry.work:
            work = {**self.entry.work, "config": configuration(self.entry.work).told()}
            known["entry"] = {**known["entry"], "work": work}
        digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:8]
        seeds = f"seed{self.seeds[0]}" if len(self.seeds) == 1 else f"seeds{self.seeds[0]}-{self.seeds[-1]}"
        words = (self.entry.task, self.entry.memory, self.entry.setting, seeds, self.device, digest)
        return "-".join(words).replace(" ", "-")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return {"entry": self.entry.to_dict(), "seeds": list(self.seeds), "device": self.device}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Undo `to_dict`."""
        return cls(Entry(**values["entry"]), tuple(values["seeds"]), values["device"])


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An experiment that ``s5-adapters reproduce NAME`` runs and reports.

    Attributes:
        title: heads the report.
        text: what is measured and where the setting differs from the published one: the report's paragraphs.
        entries: the entries at a scale.
        seeds: how many, by scale, unless the command says otherwise.
        report: module of ``reproduce.reports`` that writes the tables.
        published: numbers to stand beside ours.
        bars: by task, the return from which on it counts as learned.
        timed: seconds are what it is about, so that its cells run alone.
    """

    title: str
    text: tuple[str, ...]
    entries: Callable[[Scale], tuple[Entry, ...]]
    seeds: Mapping[str, int]
    report: str
    published: tuple[Published, ...] = ()
    bars: Mapping[str, float] = dataclasses.field(default_factory=dict)
    timed: bool = False


def choose(entries: Sequence[Entry], only: Sequence[str]) -> tuple[Entry, ...]:
    """Return the entries that match a pattern TASK, TASK/MEMORY or TASK/MEMORY/SETTING; all without any.

    Raises:
        ValueError: one line, for a pattern that matches none.
    """
    chosen: set[str] = set()
    for pattern in only:
        found = {entry.label for entry in entries if _matches(entry, pattern)}
        if not found:
            known = (
                ", ".join(dict.fromkeys(getattr(entry, name) for entry in entries))
                for name in ("task", "memory", "setting")
            )
            raise ValueError(
                f"only: got {pattern!r}, expected TASK, TASK/MEMORY or TASK/MEMORY/SETTING of "
                + "; ".join(known)
            )
        chosen |= found
    return tuple(entry for entry in entries if not only or entry.label in chosen)


def cells(entries: Sequence[Entry], seeds: int, device: str) -> Iterator[Cell]:
    """Yield the cells, a seed of all entries before the next, so that a sweep cut short compares.

    On a GPU, which one small network leaves idle, all seeds of an entry of the trainer are one program.
    """
    checks.integer("seeds", seeds)
    groups = [tuple(range(seeds))] if device == "gpu" else [(seed,) for seed in range(seeds)]
    for group in groups:
        for entry in entries:
            mine = group if entry.seeds is None else tuple(seed for seed in group if seed < entry.seeds)
            for some in [mine] if entry.runner == "train" else [(seed,) for seed in mine]:
                if some:
                    yield Cell(entry, some, device)


def trained(task: str, config: Algorithm, *, memory: str | None = None, setting: str, **rest: Any) -> Entry:
    """Make an entry that trains ``config``; ``memory`` labels it, by default with the memory's own name."""
    work = {"algorithm": config.name, "config": config.completed().to_dict()}
    return Entry(task, memory or config.memory, setting, "train", work, **rest)


def adapting(
    task: str,
    config: Algorithm,
    *,
    memory: str,
    setting: str,
    trials: int | None = None,
    held_out: bool = False,
) -> Entry:
    """Make an entry that trains ``config``, then asks for the returns within tasks, of so many trials.

    Args:
        task: what is to be learned.
        config: what to train.
        memory: labels the memory.
        setting: which hyperparameters.
        trials: of a task, when the policy is asked; None: as many as in training.
        held_out: ask for the families held out too.
    """
    entry = trained(task, config, memory=memory, setting=setting, group="adaptation")
    work = {**entry.work, "trials": trials, "held_out": held_out}
    return dataclasses.replace(entry, runner="adapt", work=work)


def configuration(work: Mapping[str, Any]) -> Algorithm:
    """Return the configuration of an entry that `trained` made."""
    return algorithm_class(work["algorithm"]).from_record(work["config"])


def with_memory(config: PPOConfig, memory: str, *, n_layers: int | None = None, **extra: Any) -> PPOConfig:
    """Replace the memory by another one, of the number of parameters nearest to the configuration's own S5's.

    Args:
        config: its memory is S5.
        memory: a registered memory; "s5" changes nothing.
        n_layers: of the other memory; None: as many as S5 has.
        extra: further arguments of that memory, on which its number of parameters does not depend.
    """
    if memory == config.memory:
        return config
    assert isinstance(config.memory_config, FrozenDict)
    arguments = _matched(config.memory_config, memory, config.encoder[-1], n_layers)
    return dataclasses.replace(config, memory=memory, memory_config=arguments | extra)


def preset_with_memories(preset: str, memories: Sequence[str], scale: Scale) -> dict[str, PPOConfig]:
    """Return a preset of S5 with each of the memories, those beside S5 with `LAYERS_BESIDE_S5`.

    Args:
        preset: the preset's name; it is PPO with S5.
        memories: registered memories.
        scale: chooses the number of layers.
    """
    config = read_preset(preset).training
    assert isinstance(config, PPOConfig)
    return {memory: with_memory(config, memory, n_layers=LAYERS_BESIDE_S5[scale]) for memory in memories}


def for_seconds_of_s5(config: PPOConfig, slower: float) -> PPOConfig:
    """Train for as long as S5 takes, the rate annealed over that.

    Args:
        config: of another memory, with S5's steps.
        slower: how many times S5's seconds a step of it takes.
    """
    return dataclasses.replace(config, total_steps=int(config.total_steps / slower))


@cache
def _matched(s5: FrozenDict[str, Any], memory: str, width: int, n_layers: int | None) -> dict[str, Any]:
    target = count_params(make_memory("s5", **s5), width)
    layers = s5["n_layers"] if n_layers is None else n_layers
    sizes = complete(memory, {"d_model": s5["d_model"], "n_layers": layers})
    return match_params(memory, sizes, target=target, width=width)


def _matches(entry: Entry, pattern: str) -> bool:
    words = pattern.split("/")
    parts = (entry.task, entry.memory, entry.setting)
    return len(words) <= len(parts) and all(map(fnmatchcase, parts, words))
