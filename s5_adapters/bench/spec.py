"""The specifications that a sweep runs, and their cells."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Self

from s5_adapters.purejax.algorithms.ppo import PPOConfig

OWN = "own-lstm"
"""The memory of a cell that runs its framework's own LSTM policy, for contrast."""
FRAMEWORKS = ("purejax", "sb3", "sb3-segments", "rllib")
HAVE_THEIR_OWN = ("sb3", "rllib")


@dataclasses.dataclass(frozen=True)
class Spec:
    """One problem, the same for every framework.

    Attributes:
        ppo: environment, sizes, hyperparameters and steps; its memory is replaced by each cell's.
        threshold: the mean return of an update's episodes from which on the task counts as learnt.
        row_length: steps in a row of RLlib's training batches (`max_seq_len`).
    """

    ppo: PPOConfig
    threshold: float
    row_length: int

    @property
    def digest(self) -> str:
        """Eight characters, different for specs that differ in anything, and the same in later versions."""
        known = {**self.ppo.told(), "threshold": self.threshold, "row_length": self.row_length}
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:8]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON can hold."""
        return {**self.ppo.completed().to_dict(), "threshold": self.threshold, "row_length": self.row_length}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make one of what `to_dict` returned."""
        rest = dict(values)
        threshold, row_length = rest.pop("threshold"), rest.pop("row_length")
        return cls(PPOConfig.from_record(rest), threshold, row_length)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of one spec, in a process of its own."""

    spec: Spec
    framework: str
    memory: str
    seed: int
    device: str = "cpu"

    @property
    def config(self) -> PPOConfig:
        """The spec's hyperparameters with this cell's memory, of the spec's width and depth."""
        ppo = self.spec.ppo
        sizes = {name: ppo.memory_config[name] for name in ("d_model", "n_layers")}
        if self.memory == ppo.memory:
            return ppo
        return dataclasses.replace(
            ppo, memory="lstm" if self.memory == OWN else self.memory, memory_config=sizes
        )

    @property
    def name(self) -> str:
        """A file name, different for cells that differ in anything."""
        ppo = self.spec.ppo
        parts = (ppo.env_id, self.framework, self.memory, f"seed{self.seed}", self.device, self.spec.digest)
        return "-".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON can hold."""
        rest = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "spec"}
        return {**rest, "spec": self.spec.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make one of what `to_dict` returned."""
        return cls(**{**values, "spec": Spec.from_dict(values["spec"])})


def _problem(env_id: str, total_steps: int, **changes: Any) -> PPOConfig:
    setting: dict[str, Any] = {
        "env_id": env_id,
        "memory": "s5",
        "memory_config": {
            "d_model": 64,
            "d_state": 64,
            "n_layers": 2,
            "dt_min": 0.01,
            "dt_max": 0.1,
            "clip_eigenvalues": False,
        },
        "encoder": (64,),
        "actor_torso": (64,),
        "critic_torso": (64,),
        "activation": "tanh",  # which every framework's own LSTM policy knows
        "critic_memory": "shared",
        "total_steps": total_steps,
        "num_envs": 16,
        "num_steps": 104,
        "num_epochs": 4,
        "num_minibatches": 4,
        "learning_rate": 1e-3,
        "anneal_learning_rate": False,
        "clip_value_loss": False,
        "target_kl": None,
    }
    return PPOConfig(**(setting | changes))


def specs(size: str) -> tuple[Spec, ...]:
    """Return the specs of a sweep: of `SIZES`, `"small"` for minutes and `"full"` for hours."""
    steps = SIZES[size]
    # RLlib appends a step to every piece of an episode: rows of exactly half a rollout would leave it alone
    # in a third row, which no loss reads but which is computed and counted when minibatches are filled.
    return (
        Spec(_problem("RepeatPreviousEasy", steps), threshold=0.8, row_length=53),
        Spec(_problem("PositionOnlyCartPoleEasy", steps, num_steps=128), threshold=0.8, row_length=65),
    )


SIZES: Mapping[str, int] = {"small": 90_000, "full": 1_000_000}
"""Environment steps of each run."""


def cells(
    specs: tuple[Spec, ...],
    frameworks: tuple[str, ...],
    memories: tuple[str, ...],
    seeds: int,
    device: str,
) -> Iterator[Cell]:
    """Return every combination, one seed of all before the next, so that a sweep cut short compares."""
    for seed in range(seeds):
        for spec in specs:
            for framework in frameworks:
                for memory in memories:
                    if memory != OWN or framework in HAVE_THEIR_OWN:
                        yield Cell(spec, framework, memory, seed, device)
