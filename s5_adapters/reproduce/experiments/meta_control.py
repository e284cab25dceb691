"""Many control tasks behind random projections, some held out: gymnax's tasks in place of dm_control's."""

from __future__ import annotations

from dataclasses import replace

from s5_adapters.purejax import PPOConfig
from s5_adapters.reproduce.spec import (
    SECONDS_OF_S5,
    Entry,
    Experiment,
    Scale,
    adapting,
    for_seconds_of_s5,
    preset_with_memories,
)

MEMORIES = ("s5", "lstm", "feedforward")
ALONE = "trained on them alone"
UNTRAINED = "untrained"
_PRESETS = {"small": "meta-control-small", "paper": "meta-control"}
_NOTHING_LEARNED = 1e-12
_LSTM_SLOWER = 3.7
"""How many times S5's seconds a step of a short LSTM run takes, about: 96 s for 2.7 million steps, S5
94 s for 10 million (AMD EPYC, 2 cores, 2026-11-29). In a run of 10 million it is 2.5.
"""


def entries(scale: Scale) -> tuple[Entry, ...]:
    """Return an entry for every memory, one for S5 on the held-out families alone, one for no training; at
    ``small`` one for an LSTM that trains no longer than S5 does.
    """
    configs = preset_with_memories(_PRESETS[scale], MEMORIES, scale)
    s5 = configs["s5"]
    alone = replace(s5, env_kwargs={**s5.to_dict()["env_kwargs"], "split": "held_out"})
    nothing = replace(configs["feedforward"], learning_rate=_NOTHING_LEARNED, total_steps=s5.steps_per_update)
    found = (
        *(_entry(config, memory, scale) for memory, config in configs.items()),
        adapting("MetaControl", alone, memory="s5", setting=ALONE, held_out=False),
        _entry(nothing, UNTRAINED, scale),
    )
    if scale == "paper":
        return found
    return (*found, _entry(for_seconds_of_s5(configs["lstm"], _LSTM_SLOWER), "lstm", SECONDS_OF_S5))


def _entry(config: PPOConfig, memory: str, setting: str) -> Entry:
    return adapting("MetaControl", config, memory=memory, setting=setting, held_out=True)


EXPERIMENT = Experiment(
    title="MetaControl: many tasks, and tasks held out",
    text=(
        "Pendulum, Reacher and PointRobot are trained on at once, every episode behind a random projection "
        "of observations and actions; MountainCarContinuous and Swimmer are held out.",
        f"`{UNTRAINED}` is a network before training, whose actions are random around zero. `{ALONE}` is S5 "
        "trained on the held-out families, and on no others.",
        "The setting `small` is the preset `meta-control-small`: S5 of four layers of 48, the others of two "
        f"layers. `{SECONDS_OF_S5}` is the LSTM with 27 % of the steps, annealed over these, which take as "
        "long as S5's. `paper` has the published sizes of S5, and the others of one layer. In both the "
        "other memories are widened to S5's number of parameters. Returns in training are of all families "
        "together, with rewards scaled to 1 or less a step.",
    ),
    entries=entries,
    seeds={"small": 5, "paper": 3},
    report="adaptation",
)
