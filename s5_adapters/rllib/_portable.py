"""The portable policy of an RLlib checkpoint."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import (
    COMPONENT_LEARNER,
    COMPONENT_LEARNER_GROUP,
    COMPONENT_RL_MODULE,
    DEFAULT_MODULE_ID,
)
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.utils.checkpoints import Checkpointable

from s5_adapters.core import Box
from s5_adapters.core.files.weights import Policy
from s5_adapters.rllib._module import S5RLModule

__all__ = ["is_checkpoint", "policy_from_checkpoint"]

_CONSTRUCTOR = Checkpointable.CLASS_AND_CTOR_ARGS_FILE_NAME


def is_checkpoint(path: Path) -> bool:
    """Tell whether a folder is a checkpoint of RLlib's new API stack: an algorithm's, or a part's."""
    return (path / _CONSTRUCTOR).is_file()


def policy_from_checkpoint(path: Path) -> Policy:
    """Return the portable policy of an algorithm's checkpoint, or of an `S5RLModule`'s.

    It is read by RLlib's own loader, which unpickles: it can run code of the checkpoint's author. Ray is not
    started.

    Args:
        path: the folder that `save_to_path` wrote, an algorithm's or an RLModule's.

    Raises:
        ValueError: another kind of module, or a part that is not portable; one line that names it.
    """
    kind, arguments = _read(path)
    config: dict[str, Any] = arguments[0] if issubclass(kind, Algorithm) else {}
    folder = _module_folder(path) if issubclass(kind, Algorithm) else path
    module_class, _ = _read(folder)
    if module_class is not S5RLModule:
        raise _refused(f"the module class {module_class.__name__}, expected S5RLModule")
    if config.get("_env_to_module_connector") is not None:
        raise _refused("the connector between environment and module (env_to_module_connector)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of actions that may be rescaled, which is checked below
        module = _module(folder)
    policy: Policy = module.to_policy()
    if isinstance(policy.config.action, Box) and config.get("normalize_actions", False):
        raise _refused("actions that RLlib rescales (normalize_actions=True)")
    env = config.get("env")
    return replace(
        policy,
        env_id=env if isinstance(env, str) else None,
        env_kwargs=_plain(config.get("env_config", {})),
        training={"trainer": "rllib"},
    )


def _read(path: Path) -> tuple[type, tuple[Any, ...]]:
    """Return the class that a checkpoint is of, and what it was constructed with."""
    try:
        constructor = pickle.loads((path / _CONSTRUCTOR).read_bytes())
        return constructor["class"], constructor["ctor_args_and_kwargs"][0]
    except Exception as error:  # unpickling can fail in any way
        raise ValueError(f"{path}: not a readable RLlib checkpoint: {type(error).__name__}") from error


def _module(folder: Path) -> Any:
    try:
        return RLModule.from_checkpoint(folder.resolve())
    except Exception as error:  # unpickling can fail in any way
        told = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ValueError(f"{folder}: not a readable RLlib checkpoint: {told}") from error


def _module_folder(path: Path) -> Path:
    modules = path / COMPONENT_LEARNER_GROUP / COMPONENT_LEARNER / COMPONENT_RL_MODULE
    if not is_checkpoint(modules / DEFAULT_MODULE_ID):
        found = sorted(folder.name for folder in modules.glob("*") if is_checkpoint(folder))
        raise ValueError(
            f"{path}: has no module {DEFAULT_MODULE_ID!r} but {found}: give one's folder under {modules}"
        )
    return modules / DEFAULT_MODULE_ID


def _plain(env_config: Any) -> dict[str, Any]:
    """Return the part of an environment's configuration that JSON can hold."""
    kinds = (str, int, float, bool, type(None))
    return {name: value for name, value in dict(env_config).items() if isinstance(value, kinds)}


def _refused(part: str) -> ValueError:
    return ValueError(f"not portable: {part}; docs/weights.md says what is")
