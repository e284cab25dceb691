"""The tutorial for RLlib, from top to bottom at small sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
from _rllib import local_ray, quiet_ray

from tests.documents import run_small

pytestmark = quiet_ray


def test_rllib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = {
        "num_env_runners=2": "num_env_runners=0",
        '"d_model": 64,\n            "encoder"': '"d_model": 8,\n            "encoder"',
        "gamma=0.0": "train_batch_size_per_learner=512, minibatch_size=256, num_epochs=1, gamma=0.0",
        "range(60)": "range(1)",
    }
    with local_ray():
        names = run_small("tutorials/rllib.md", sizes)
    assert names["policy"].config.memory == "s5"
    assert names["action"].shape == (1,)
