"""Parameters that are not finite are told after the update that made them so, and never saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch as th
from sb3_contrib import RecurrentPPO

from s5_adapters.sb3 import S5RecurrentPPO

NAMED = r"parameter 'trunk\.memory/[^']+' is not finite"


def model(algorithm: type[RecurrentPPO], name: str = "S5Policy", **kwargs: Any) -> RecurrentPPO:
    sizes = {"d_model": 8, "n_layers": 1, "net_arch": []} if name == "S5Policy" else {"lstm_hidden_size": 4}
    settings = {"n_steps": 16, "batch_size": 16, "n_epochs": 1, "seed": 0, **kwargs}
    return algorithm(name, "CartPole-v1", policy_kwargs=sizes, **settings)


def spoil(ppo: RecurrentPPO) -> None:
    with th.no_grad():
        next(ppo.policy.lstm_actor.parameters()).view(-1)[0] = float("nan")


def test_an_update_that_spoils_is_told_at_once() -> None:
    ppo = model(S5RecurrentPPO, learning_rate=float("inf"))
    with pytest.raises(ValueError, match=r"is not finite after update 1 \(step 16\): \d+ of \d+ numbers"):
        ppo.learn(64)


def test_so_it_is_with_the_lstm_policy_on_segments(tmp_path: Path) -> None:
    ppo = model(S5RecurrentPPO, "MlpLstmPolicy", learning_rate=float("inf"))
    with pytest.raises(ValueError, match="is not finite after update 1"):
        ppo.learn(64)
    with pytest.raises(ValueError, match="is not finite and is not saved"):
        ppo.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_the_stock_algorithm_is_stopped_before_it_acts_again() -> None:
    ppo = model(RecurrentPPO, learning_rate=float("inf"))
    with pytest.raises(ValueError, match="is not finite after update 1: "):
        ppo.learn(64)
    assert ppo.num_timesteps == 16


@pytest.mark.parametrize("algorithm", [RecurrentPPO, S5RecurrentPPO])
def test_nothing_is_written(algorithm: type[RecurrentPPO], tmp_path: Path) -> None:
    ppo = model(algorithm)
    ppo.save(tmp_path / "good")
    before = (tmp_path / "good.zip").read_bytes()
    spoil(ppo)
    for save in (ppo.save, ppo.policy.save):
        for name in ("good.zip", "bad"):
            with pytest.raises(ValueError, match=f"{NAMED} and is not saved: 1 of") as caught:
                save(tmp_path / name)
            assert "\n" not in str(caught.value)
    assert (tmp_path / "good.zip").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ValueError, match=f"{NAMED} before any update"):
        ppo.predict(ppo.env.reset())
    ppo.set_parameters(str(tmp_path / "good"))
    ppo.predict(ppo.env.reset())
