"""The folder of a run: ``config.json``, ``log.jsonl``, ``tensorboard/`` and ``checkpoints/``."""

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from s5_adapters.core import checks
from s5_adapters.purejax.algorithms.algorithm import DEFAULT, Algorithm, algorithm_class

CONFIG_NAME = "config.json"
CHECKPOINTS_NAME = "checkpoints"
BEST_NAME = "best.safetensors"
ALGORITHM = "algorithm"
"""The key of ``config.json`` that names the algorithm; a file without it is from before there were others."""


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a run is watched and kept. Nothing here changes what is learned."""

    chunk_updates: int | None = None
    """Updates between two looks of the host, at most 256; None: as many as take about half a second."""
    evaluate_every: int | None = None
    """Updates between evaluations on fresh episodes; None: no evaluation while training."""
    evaluation_episodes: int = 64
    """Episodes of each of those evaluations."""
    checkpoint_every: int | None = None
    """Updates between checkpoints; None: a tenth of the run. The end of the run is always one."""
    keep_checkpoints: int = 3
    """How many of the last checkpoints stay."""
    keep_best: bool = False
    """After each evaluation that is better than all before, write the policy to best.safetensors."""
    wandb: bool = False
    """Log to Weights & Biases too (extra wandb; its own environment variables say where)."""

    def __post_init__(self) -> None:
        """Check every number."""
        for name in ("chunk_updates", "evaluate_every", "checkpoint_every"):
            if getattr(self, name) is not None:
                checks.integer(name, getattr(self, name))
        for name in ("evaluation_episodes", "keep_checkpoints"):
            checks.integer(name, getattr(self, name))
        for name in ("keep_best", "wandb"):
            checks.boolean(name, getattr(self, name))
        if self.keep_best and self.evaluate_every is None:
            raise ValueError("keep_best: got True, expected evaluate_every with it, which tells what is best")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The contents of ``config.json``, one flat mapping."""

    training: Algorithm = dataclasses.field(default_factory=lambda: algorithm_class(DEFAULT)())
    """What is trained, and by which algorithm."""
    seed: int = 0
    """The run's key is ``jax.random.key(seed)``."""
    weights: str | None = None
    """Policy file that training starts from, which also sets the network's options; None: random weights."""
    options: RunOptions = dataclasses.field(default_factory=RunOptions)
    """How it is watched and kept."""
    devices: int = 1
    """Devices that the run was begun on, each with an equal share of the environments."""

    def __post_init__(self) -> None:
        """Check the seed and the devices; the parts check themselves."""
        checks.integer("seed", self.seed, minimum=0)
        checks.integer("devices", self.devices)
        if not isinstance(self.weights, str | None):
            raise ValueError(f"weights: got {self.weights!r}, expected the name of a file")

    def completed(self) -> Self:
        """Return the same with the defaults that ``memory_config`` leaves out, as a run writes it."""
        return dataclasses.replace(self, training=self.training.completed())

    def to_dict(self) -> dict[str, Any]:
        """Return all fields in one flat mapping that JSON can hold."""
        return self._learning | {"devices": self.devices} | dataclasses.asdict(self.options)

    def differences(self, here: Self) -> str:
        """Say in which fields that change what is learned the run of a folder is another; nothing if in none.

        On how many devices a run was begun, and how it is watched and kept, changes nothing.

        Args:
            here: the run that is asked for.
        """
        there, wanted = self.completed()._learning, here.completed()._learning
        different = [
            f"{name} is {there.get(name)!r} there and {value!r} here"
            for name, value in wanted.items()
            if there.get(name) != value
        ]
        return f"its run has another configuration: {', '.join(different)}" if different else ""

    @property
    def _learning(self) -> dict[str, Any]:
        start = {"seed": self.seed, "weights": self.weights}
        return {ALGORITHM: self.training.name} | self.training.to_dict() | start

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Undo :meth:`to_dict`; fields left out take their defaults, those of the algorithm named.

        Raises:
            ValueError: one line, for an unknown algorithm or field or a value out of range.
        """
        rest = dict(values)
        algorithm = algorithm_class(rest.pop(ALGORITHM, DEFAULT))
        option_names = [field.name for field in dataclasses.fields(RunOptions)]
        options = {name: rest.pop(name) for name in option_names if name in rest}
        seed, weights, devices = rest.pop("seed", 0), rest.pop("weights", None), rest.pop("devices", 1)
        names = [field.name for field in dataclasses.fields(algorithm)]
        for name in rest:
            if name not in names:
                known = checks.nearest_names(
                    name, [*names, ALGORITHM, "seed", "weights", "devices", *option_names]
                )
                raise ValueError(f"unknown field {name!r}, expected one of {known}")
        return cls(algorithm.from_dict(rest), seed, weights, RunOptions(**options), devices)


def write_config(run_dir: Path, config: RunConfig) -> None:
    """Make the folder of a run, with its ``config.json``, written in place so that a lock on it stays.

    The configuration is completed: a run goes on as it began whatever becomes of the defaults.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config.completed().to_dict(), indent=2) + "\n"
    (run_dir / CONFIG_NAME).write_text(text, encoding="utf-8")


def read_config(path: str | Path) -> RunConfig:
    """Read a configuration: a JSON or TOML file, or the folder of a run.

    Raises:
        ValueError: one line naming the file, where it is missing, malformed or holds what no run can be.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    is_of_a_run = path.is_dir() or (path.name == CONFIG_NAME and (path.parent / CHECKPOINTS_NAME).exists())
    if path.is_dir():
        if not (path / CONFIG_NAME).is_file():
            raise ValueError(f"{path}: no {CONFIG_NAME} there, expected the folder of a run")
        path = path / CONFIG_NAME
    try:
        values = _read_mapping(path)
        config = RunConfig.from_dict(values)
        return _as_formerly(config, values) if is_of_a_run else config
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _as_formerly(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """Fill what a run's ``config.json`` leaves out, which it did only before runs completed it."""
    training = config.training
    said = {name: value for name, value in training.to_dict().items() if name in values}
    return dataclasses.replace(config, training=training.from_record(said))


def _read_mapping(path: Path) -> dict[str, Any]:
    readers = {".json": json.loads, ".toml": tomllib.loads}
    if path.suffix not in readers:
        raise ValueError(f"a file name ending in {path.suffix!r}, expected one of {', '.join(readers)}")
    values = readers[path.suffix](path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"got a {type(values).__name__}, expected a mapping of field names to values")
    return values
