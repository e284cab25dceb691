"""The experiments: one module each, whose ``EXPERIMENT`` says what is run and reported."""

from __future__ import annotations

import importlib

from s5_adapters.core import checks
from s5_adapters.reproduce.spec import Experiment

_MODULES = {
    "popgym-hard": "popgym_hard",
    "memory-length": "memory_length",
    "popgym": "popgym",
    "meta-cartpole": "meta_cartpole",
    "meta-control": "meta_control",
    "meta-dmc": "meta_dmc",
    "scaling": "scaling",
    "robust": "robust",
}


def experiment_names() -> tuple[str, ...]:
    """Return the names that ``find_experiment`` knows."""
    return tuple(_MODULES)


def find_experiment(name: str) -> Experiment:
    """Return the experiment of a name.

    Raises:
        ValueError: there is none; the message lists the names, the nearest first.
    """
    checks.one_of("experiment", name, experiment_names())
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    experiment: Experiment = module.EXPERIMENT
    return experiment
