"""Portable policies from trained models: the kind is detected and read by its framework's loader."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from s5_adapters.core.files.weights import Policy, load_policy


class Source(NamedTuple):
    """The kind of a trained model, and its policy."""

    kind: str
    """Its kind, in words."""
    policy: Policy
    unpickled: bool
    """Reading it unpickled, and could have run code of its author's."""


def read_policy(
    path: Path,
    *,
    checkpoint: int | None = None,
    vecnormalize: Path | None = None,
    report: Callable[[str], object] = warnings.warn,
) -> Source:
    """Read the policy in the folder of a run, an SB3 model, an RLlib checkpoint or a policy file.

    Args:
        path: a file or folder.
        checkpoint: of a run, the one after this many updates; None for the newest that is whole.
        vecnormalize: what `VecNormalize.save` wrote beside an SB3 model.
        report: given a line for each newer checkpoint of a run that was passed over.

    Raises:
        ValueError: one line, for another kind of file, one that cannot be read, a part of the policy that is
            not portable (which is named), an argument for another kind, or a package that is missing.
    """
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    kind = next((kind for kind in _KINDS if kind.is_it(path)), None)
    if kind is None:
        raise ValueError(f"{path}: expected {', '.join(kind.name for kind in _KINDS)}")
    for name, value, owner in (("checkpoint", checkpoint, _RUN), ("vecnormalize", vecnormalize, _SB3)):
        if value is not None and kind is not owner:
            raise ValueError(f"{name}: got {value} for {path}, {kind.name}; it goes with {owner.name} alone")
    try:
        return Source(kind.name, kind.read(path, checkpoint, vecnormalize, report), kind.extra is not None)
    except ImportError as error:
        if kind.extra is None:
            raise
        needed = f"pip install 's5-adapters[{kind.extra}]'"
        raise ValueError(f"{path}: reading {kind.name} takes {needed} ({error})") from error


def _from_run(path: Path, checkpoint: int | None, _: Path | None, report: Callable[[str], object]) -> Policy:
    from s5_adapters.purejax import restore_policy

    return restore_policy(path, checkpoint, report=report).to_portable()


def _from_sb3(path: Path, _: int | None, vecnormalize: Path | None, *__: object) -> Policy:
    from s5_adapters.sb3.portable import policy_from_zip

    return policy_from_zip(path, vecnormalize)


def _from_rllib(path: Path, *_: object) -> Policy:
    from s5_adapters.rllib._portable import policy_from_checkpoint

    return policy_from_checkpoint(path)


def _from_file(path: Path, *_: object) -> Policy:
    return load_policy(path)


class _Kind(NamedTuple):
    name: str
    is_it: Callable[[Path], bool]
    read: Callable[[Path, int | None, Path | None, Callable[[str], object]], Policy]
    extra: str | None = None
    """The extra of this package that must be installed; its loader unpickles."""


_RUN = _Kind("the folder of a run", lambda path: (path / "config.json").is_file(), _from_run)
_SB3 = _Kind("a Stable-Baselines3 model (.zip)", zipfile.is_zipfile, _from_sb3, "sb3")
_RLLIB = _Kind(
    "an RLlib checkpoint", lambda path: (path / "class_and_ctor_args.pkl").is_file(), _from_rllib, "rllib"
)
_FILE = _Kind("a policy (.safetensors)", lambda path: path.suffix == ".safetensors", _from_file)
_KINDS = (_RUN, _SB3, _RLLIB, _FILE)
