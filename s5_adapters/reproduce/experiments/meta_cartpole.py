"""Meta-CartPole of Lu et al.: 16 trials behind one random projection, 32 when the policies are asked."""

from __future__ import annotations

from dataclasses import replace

from s5_adapters.presets import read_preset
from s5_adapters.purejax import PPOConfig
from s5_adapters.reproduce.published import META_CARTPOLE
from s5_adapters.reproduce.spec import (
    SECONDS_OF_S5,
    Entry,
    Experiment,
    Scale,
    adapting,
    for_seconds_of_s5,
    with_memory,
)

MEMORIES = ("s5", "gru", "feedforward")
WITHOUT_RESETS = "s5 without resets"
CREDITED_WITH_THE_TASK = "credited with the task"
_PRESETS = {"small": "meta-cartpole-small", "paper": "meta-cartpole"}
_TRIALS = 32
_GRU_SLOWER = 3
"""How many times S5's seconds a GRU takes: ``train --dry-run`` says 2.8 (AMD EPYC, 2 cores, 2026-11-29)."""


def entries(scale: Scale) -> tuple[Entry, ...]:
    """Return an entry for every memory and one for S5 without resets; at ``small``, which differs from the
    published setting, one for S5 credited as published, and one for a GRU that trains no longer than S5 does.
    """
    config = read_preset(_PRESETS[scale]).training
    assert isinstance(config, PPOConfig)
    found = (
        *(_entry(with_memory(config, memory), scale, memory) for memory in MEMORIES),
        _entry(replace(config, resets=False), scale, WITHOUT_RESETS),
    )
    if scale == "paper":
        return found
    return (
        *found,
        _entry(replace(config, trial_end="continue"), CREDITED_WITH_THE_TASK, "s5"),
        _entry(for_seconds_of_s5(config, "gru", _GRU_SLOWER), SECONDS_OF_S5, "gru"),
    )


def _entry(config: PPOConfig, setting: str, memory: str) -> Entry:
    return adapting("MetaCartPole", config, memory=memory, setting=setting, trials=_TRIALS)


EXPERIMENT = Experiment(
    title="Meta-CartPole: learning within a task",
    text=(
        "Position and angle of a CartPole behind a random projection, drawn anew for each task; a task has "
        "16 trials of 200 steps from the same state, and the memory lasts over all of them. A trial's return "
        "is at most 1.",
        "The trained policies are asked with 32 trials, in 256 new tasks each. `s5 without resets` is never "
        "told that a task begins: it plays another task before the one that is counted.",
        "The setting `small` is the preset `meta-cartpole-small`: two layers of 64, and an action is "
        "credited with its own trial's return (`trial_end`), where the published code credits it with the "
        f"task's, as `{CREDITED_WITH_THE_TASK}` does here, otherwise the same. "
        f"`{SECONDS_OF_S5}` is the GRU with a third of the steps, annealed over these, which take about as "
        "long as S5's. `paper` has the sizes and steps of the published code's other tasks. In both the "
        "other memories are widened to S5's number of parameters.",
    ),
    entries=entries,
    seeds={"small": 3, "paper": 4},
    report="adaptation",
    published=(META_CARTPOLE,),
)
