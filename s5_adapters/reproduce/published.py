"""Numbers that others published, with their source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from s5_adapters.adaptation.table import TRIALS


@dataclass(frozen=True)
class Published:
    """One table of a publication.

    Attributes:
        column: heads its column in ours.
        source: the publication, what is measured there and in which setting.
        values: by task; where one task has trials by the number of the trial, where it has families by
            family; then by the label of the memory. "*" holds for a task, whatever the memory.
    """

    column: str
    source: str
    values: Mapping[str, Mapping[str, str]]

    def find(self, task: str, memory: str) -> str:
        """Return the number for a line of a table, or a dash."""
        row = self.values.get(task, {})
        return row.get(memory, row.get("*", "-"))


_META_CARTPOLE = {
    "s5": (".27", ".365", ".395", ".44", ".465", ".44", ".405"),
    "gru": (".135", ".20", ".36", ".385", ".41", ".335", ".325"),
    "s5 without resets": (".10", ".15", ".19", ".29", ".375", ".39", ".365"),
    "feedforward": (".17",) * 7,
}
_HARD = (
    "RepeatPreviousHard",
    "PositionOnlyCartPoleHard",
    "NoisyPositionOnlyCartPoleHard",
    "PositionOnlyPendulumHard",
    "NoisyPositionOnlyPendulumHard",
)
_LU = "Lu et al., NeurIPS 2023 (arXiv 2303.03982)"


def _by_task(**memories: tuple[str, ...]) -> dict[str, dict[str, str]]:
    return {
        task: {memory.replace("_", " "): values[i] for memory, values in memories.items()}
        for i, task in enumerate(_HARD)
    }


POPGYM_HARD = Published(
    "Lu et al.",
    f"{_LU}: MMER, the mean over 8 seeds, after 15 million steps on an A40; the feedforward network is their "
    "MLP. Their program merges termination and truncation, so that time limits count as terminations.",
    _by_task(
        s5=(".91", "1.0", ".28", ".79", ".55"),
        gru=("-.46", "1.0", ".27", ".75", ".61"),
        feedforward=("-.48", ".26", ".22", ".41", ".34"),
        s5_without_resets=(".76", "1.0", ".28", ".71", ".50"),
    ),
)

POPGYM_BEST = Published(
    "best of POPGym",
    "Morad et al., ICLR 2023 (arXiv 2303.01859): MMER of the best of their 13 memories, named in brackets "
    "where it is known, after 15 million steps.",
    {
        task: {"*": value}
        for task, value in zip(
            _HARD, (".191 (LMU)", "1.0", ".404 (IndRNN)", ".828", ".657 (GRU)"), strict=True
        )
    },
)

MEMORY_LENGTH = Published(
    "Lu et al.",
    f"{_LU}: bsuite's memory length with A2C, one environment, gradients over 32 steps, 10,000 episodes, 5 "
    "seeds on an A100; returns read off the figure (about), with the seconds at 2,048. It is "
    "their number for the setting `published`; `ours` is another setting.",
    {
        **{
            f"MemoryChain-{length}": {
                "s5": "1.0",
                **({"lstm": "1.0"} if length <= 8 else {"lstm": "below 1"}),
                **({"attention": ".7"} if length == 512 else {}),
            }
            for length in (4, 8, 16, 32, 64, 128, 256, 512)
        },
        "MemoryChain-1024": {"s5": ".5", "lstm": "below 1"},
        "MemoryChain-2048": {"s5": "0 (3.0k s)", "lstm": "below 1 (4.5k s)", "attention": "- (52.6k s)"},
    },
)

META_CARTPOLE = Published(
    "Lu et al.",
    f"{_LU}: return by trial on Meta-CartPole, 4 seeds, read off the figure (about); 16 trials in training, "
    "32 in the evaluation. Sizes and steps are not stated there.",
    {
        str(trial): {memory: values[i] for memory, values in _META_CARTPOLE.items()}
        for i, trial in enumerate(TRIALS)
    },
)

META_DMC = Published(
    "Lu et al.",
    f"{_LU}: returns after 2 billion frames with Muesli, 3 seeds, read off the figure (about); S5 of 10 "
    "layers of 256, an LSTM of 512. Their suite is dm_control's own.",
    {
        task: dict(zip(("s5", "lstm", "feedforward"), values, strict=True))
        for task, values in {
            "BallInCup": ("945", "920", "145"),
            "CartpoleSwingup": ("620", "520", "163"),
            "FingerSpin": ("815", "475", "35"),
            "FingerTurnHard": ("750", "420", "320"),
            "PointMass": ("800", "765", "4"),
            "ReacherEasy": ("915", "900", "735"),
            "CartpoleBalance": ("434", "284", "229"),
            "FingerTurnEasy": ("803", "415", "385"),
            "PendulumSwingup": ("1.4", "3.8", "1.9"),
            "ReacherHard": ("597", "614", "293"),
        }.items()
    },
)
