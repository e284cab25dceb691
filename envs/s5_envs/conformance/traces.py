"""Files of recorded episodes: one ``.npz`` a family, keys ``<Variant>/<field>``, JSON in ``meta``.

Per variant: ``ep_start`` (E + 1 offsets into the per-step fields), ``reset_obs`` and hidden state ``h_*`` (E
rows), ``action``, ``obs``, ``reward``, ``terminated``, ``truncated`` and ``x_*`` (one row a step, all
episodes concatenated).
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np


class TraceError(Exception):
    """A folder or file that cannot be read as recorded episodes."""


@dataclass(frozen=True)
class TraceFile:
    """One family's file, with its fields checked as they are asked for."""

    path: Path

    @property
    def family(self) -> str:
        """The family's name: the file's, without its ending."""
        return self.path.stem

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        try:
            if not zipfile.is_zipfile(self.path):
                raise ValueError("it is no zip file")
            with np.load(self.path, allow_pickle=False) as file:
                return {key: file[key] for key in file.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zipfile.error) as error:
            raise TraceError(f"{self.path.name}: not a readable .npz file ({error})") from None

    @cached_property
    def meta(self) -> dict[str, dict[str, Any]]:
        """Each variant's parameters."""
        if "meta" not in self._arrays:
            raise TraceError(f"{self.path.name}: has no 'meta', expected a JSON string of its variants")
        try:
            meta = json.loads(str(self._arrays["meta"]))
        except json.JSONDecodeError as error:
            raise TraceError(f"{self.path.name}: 'meta' is not JSON ({error})") from None
        if not isinstance(meta, dict):
            raise TraceError(f"{self.path.name}: 'meta' must be a JSON object keyed by variant")
        return meta

    @property
    def variants(self) -> list[str]:
        """Variants that ``meta`` names or that have fields."""
        named = dict.fromkeys(self.meta)
        return list(named | dict.fromkeys(key.split("/")[0] for key in self._arrays if "/" in key))

    def has(self, variant: str, name: str) -> bool:
        """Tell whether a field was recorded."""
        return f"{variant}/{name}" in self._arrays

    def field(self, variant: str, name: str, rows: int | None = None) -> np.ndarray:
        """Return a field, of ``rows`` rows where that is given.

        Raises:
            TraceError: where it is missing or has another number of rows.
        """
        key = f"{variant}/{name}"
        if key not in self._arrays:
            raise TraceError(f"{self.path.name}: {key!r} is missing")
        array = self._arrays[key]
        if array.dtype.kind not in "biuf":
            raise TraceError(f"{self.path.name}: {key!r} must hold numbers, got {array.dtype}")
        if rows is not None and array.shape[:1] != (rows,):
            raise TraceError(f"{self.path.name}: {key!r} has shape {array.shape}, expected {rows} rows")
        return array

    def episodes(self, variant: str) -> Episodes:
        """Return a variant's episodes, padded to the longest."""
        offsets = self.field(variant, "ep_start").astype(np.int64)
        if offsets.ndim != 1 or len(offsets) < 1 or offsets[0] != 0 or (np.diff(offsets) < 1).any():
            raise TraceError(f"{self.path.name}: '{variant}/ep_start' must be increasing offsets from 0")
        return Episodes(self, variant, offsets)


@dataclass(frozen=True)
class Episodes:
    """The episodes of one variant."""

    file: TraceFile
    variant: str
    offsets: np.ndarray  # (E + 1,) int64

    @property
    def num_episodes(self) -> int:
        """How many there are."""
        return len(self.offsets) - 1

    @property
    def num_steps(self) -> int:
        """Steps of all episodes."""
        return int(self.offsets[-1])

    @cached_property
    def valid(self) -> np.ndarray:
        """``(E, T)`` bool: True for steps that were recorded, False for padding."""
        lengths = np.diff(self.offsets)
        return np.arange(lengths.max()) < lengths[:, None]

    def has(self, name: str) -> bool:
        """Tell whether a field was recorded."""
        return self.file.has(self.variant, name)

    def per_episode(self, name: str) -> np.ndarray:
        """Return a field with one row an episode, ``(E, ...)``."""
        return self.file.field(self.variant, name, self.num_episodes)

    def per_step(self, name: str) -> np.ndarray:
        """Return a field with one row a step, padded with zeros to ``(E, T, ...)``."""
        flat = self.file.field(self.variant, name, self.num_steps)
        padded = np.zeros(self.valid.shape + flat.shape[1:], flat.dtype)
        padded[self.valid] = flat
        return padded
