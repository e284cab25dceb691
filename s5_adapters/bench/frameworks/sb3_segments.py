"""Stable-Baselines3 with `S5RecurrentPPO`."""

from __future__ import annotations

from pathlib import Path

from s5_adapters.bench.frameworks import sb3
from s5_adapters.bench.record import Recorder
from s5_adapters.bench.spec import Cell
from s5_adapters.sb3 import S5RecurrentPPO


def run(cell: Cell, weights: Path | None, record: Recorder) -> None:
    """Train on whole segments, as long as a rollout: the spec's minibatches of whole environments."""
    sb3.train(S5RecurrentPPO, cell, weights, record, segment_length=cell.config.num_steps)
