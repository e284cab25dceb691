"""rl-baselines3-zoo's own command line and tuned hyperparameters, with the policy's name replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sb3_contrib import RecurrentPPO

from s5_adapters.sb3 import S5Policy


@pytest.mark.parametrize("env_id", ["CartPoleNoVel-v1", "s5_envs/RepeatPreviousEasy-v0"])
def test_the_zoo_trains_with_the_policys_name_replaced(env_id: str, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "rl_zoo3.train", "--algo", "ppo_lstm", "--env", env_id),
        *("--gym-packages", "s5_adapters.sb3", "s5_envs.gymnasium"),
        *("--n-timesteps", "256", "--eval-freq", "-1", "--device", "cpu", "--num-threads", "1"),
        *("--log-folder", str(tmp_path), "--seed", "0", "--hyperparams", "policy:'S5Policy'"),
    ]
    if env_id.startswith("s5_envs/"):
        command += ["n_steps:128", "n_envs:1", "n_epochs:1"]  # nothing is tuned for it
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (saved,) = tmp_path.glob("ppo_lstm/*/*.zip")
    assert isinstance(RecurrentPPO.load(saved, device="cpu").policy, S5Policy)
