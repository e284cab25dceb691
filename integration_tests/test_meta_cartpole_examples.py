"""The three examples that train on MetaCartPole run, and tell the return of each trial."""

from __future__ import annotations

from pathlib import Path

import meta_cartpole
import pytest
import rllib_meta_cartpole
import sb3_meta_cartpole
from _rllib import TINY, local_ray, quiet_ray

from s5_adapters.adaptation.curves import Question, ask

pytestmark = quiet_ray

ENV = {"num_trials": 2, "max_episode_length": 5}
RETURNS = pytest.approx(1.0)
"""Nothing falls in five steps."""


def test_in_the_trainer(tmp_path: Path) -> None:
    run = meta_cartpole.train(
        tmp_path / "run",
        env_kwargs={"previous_action": True, **ENV},
        memory_config={"d_model": 8, "d_state": 8, "n_layers": 1},
        encoder=(8,),
        num_envs=8,
        num_minibatches=2,
        num_steps=4,
        total_steps=64,
    )
    (found,) = ask([run], Question(num_tasks=2))[1]
    assert found.by_trial.mean.tolist() == [RETURNS, RETURNS]


def test_in_stable_baselines3() -> None:
    assert sb3_meta_cartpole.train(80, num_envs=4, n_steps=20, **ENV) == {0: RETURNS, 1: RETURNS}


def test_in_rllib() -> None:
    with local_ray():
        config = rllib_meta_cartpole.config(num_envs=4, **ENV)
        config.rl_module(model_config={"max_seq_len": 8, "n_layers": 1, **TINY})
        config.training(train_batch_size_per_learner=80, minibatch_size=40, num_epochs=1)
        algo = config.build_algo()
        try:
            assert rllib_meta_cartpole.by_trial(algo.train()) == {"00": RETURNS, "01": RETURNS}
        finally:
            algo.stop()
