"""The paper's many control tasks behind random projections, on MuJoCo Playground's DeepMind Control tasks."""

from __future__ import annotations

from s5_adapters.reproduce.published import META_DMC
from s5_adapters.reproduce.spec import Entry, Experiment, Scale, adapting, preset_with_memories

MEMORIES = ("s5", "lstm", "feedforward")
_PRESETS = {"small": "meta-dmc-small", "paper": "meta-dmc"}


def entries(scale: Scale) -> tuple[Entry, ...]:
    """Return an entry for every memory."""
    configs = preset_with_memories(_PRESETS[scale], MEMORIES, scale)
    return tuple(
        adapting("MetaDMC", config, memory=memory, setting=scale, held_out=True)
        for memory, config in configs.items()
    )


EXPERIMENT = Experiment(
    title="MetaDMC: the paper's control tasks, and tasks held out",
    text=(
        "DeepMind Control tasks, of MuJoCo Playground (`pip install '.[control]'`), every episode of 1,000 "
        "steps behind a random projection of observations and actions; a return is at most 1,000.",
        "The setting `small` is the preset `meta-dmc-small`: CartpoleSwingup, PointMass and ReacherEasy, two "
        "layers of 128, 30 million steps, a sixtieth of the published number. `paper` has all six "
        "training tasks and the published sizes of S5, with PPO in place of Muesli. In both the other "
        "memories are widened to S5's number of parameters, at `paper` in one layer (the published LSTM has "
        "512 units). Returns in training are of all families together.",
    ),
    entries=entries,
    seeds={"small": 1, "paper": 3},
    report="adaptation",
    published=(META_DMC,),
)
