"""Meta-CartPole of Lu et al.: 16 trials behind one random projection, 32 when the policies are asked."""

from __future__ import annotations

from dataclasses import replace

from s5_adapters.purejax import PPOConfig
from s5_adapters.reproduce.published import META_CARTPOLE
from s5_adapters.reproduce.spec import (
    SECONDS_OF_S5,
    Entry,
    Experiment,
    Scale,
    adapting,
    for_seconds_of_s5,
    preset_with_memories,
)

MEMORIES = ("s5", "gru", "feedforward")
WITHOUT_RESETS = "s5 without resets"
CREDITED_WITH_THE_TASK = "credited with the task"
_PRESETS = {"small": "meta-cartpole-small", "paper": "meta-cartpole"}
_TRIALS = 32
_GRU_SLOWER = 2.5
"""How many times S5's seconds a step of a GRU takes, about: 117 s for 3.2 million steps, S5 110 s for 8
million (AMD EPYC, 2 cores, 2026-11-29).
"""


def entries(scale: Scale) -> tuple[Entry, ...]:
    """Return an entry for every memory and one for S5 without resets; at ``small``, which differs from the
    published setting, one for S5 and one for a GRU credited as published, and one for a GRU that trains no
    longer than S5 does.
    """
    configs = preset_with_memories(_PRESETS[scale], MEMORIES, scale)
    s5 = configs["s5"]
    found = (
        *(_entry(config, scale, memory) for memory, config in configs.items()),
        _entry(replace(s5, resets=False), scale, WITHOUT_RESETS),
    )
    if scale == "paper":
        return found
    return (
        *found,
        *(
            _entry(replace(configs[memory], trial_end="continue"), CREDITED_WITH_THE_TASK, memory)
            for memory in ("s5", "gru")
        ),
        _entry(for_seconds_of_s5(configs["gru"], _GRU_SLOWER), SECONDS_OF_S5, "gru"),
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
        "The setting `small` is the preset `meta-cartpole-small`: S5 of four layers of 48, the others of two "
        "layers. An action is credited with its own trial's return (`trial_end`), where the published code "
        f"credits it with the task's, as `{CREDITED_WITH_THE_TASK}` does here, otherwise the same. "
        f"`{SECONDS_OF_S5}` is the GRU with two fifths of the steps, annealed over these, which take about "
        "as long as S5's. `paper` has the sizes and steps of the published code's other tasks, and a GRU of "
        "one layer. In both the other memories are widened to S5's number of parameters.",
    ),
    entries=entries,
    seeds={"small": 3, "paper": 4},
    report="adaptation",
    published=(META_CARTPOLE,),
)
