"""The tutorials' code, from top to bottom at small sizes: a reader's script and what it becomes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from s5_adapters import PPOConfig
from tests.documents import run_small


def test_stable_baselines3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    sizes = {
        "learn(50_000)": "learn(32)",
        "learn(500_000)": "learn(32)",
        "n_steps=128": "n_steps=32",
        "n_steps=104": "n_steps=4",
        "batch_size=64": "batch_size=32, n_epochs=1",
        "batch_size=832": "batch_size=64",
        "range(500)": "range(5)",
    }
    try:
        names = run_small("tutorials/sb3.md", sizes)
    finally:
        torch.set_num_threads(threads)
    assert names["action"].shape == (32,)


def test_purejaxrl() -> None:
    names = run_small("tutorials/purejaxrl.md", {"128": "16", "500_000": "128"})
    assert names["result"].metrics["episode_return"].shape == (2,)
    # What the page's table of ppo_rnn.py's arguments leaves out is this package's default there too.
    assert PPOConfig().clip_value_loss
    assert PPOConfig().normalize_advantages
