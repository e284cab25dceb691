"""A study that builds one network after another must not keep them: resident memory stays bounded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import gc, sys, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
from s5_adapters.sb3 import S5RecurrentPPO

def resident_mib():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

for i in range({models}):
    model = S5RecurrentPPO(
        "S5Policy", "CartPole-v1", n_steps=16, batch_size=16, n_epochs=1, device="cpu",
        policy_kwargs=dict(d_model=8 + 2 * (i % 60), n_layers=1 + i // 60, net_arch=[8]),
    )
    model.learn(16)
    del model
    if i == 9:
        tenth = resident_mib()
print(resident_mib() - tenth)
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)  # compiles 200 networks without a cache: more than 20 minutes of a busy core
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux' account of a process")
def test_two_hundred_models_of_different_shapes_leave_little_behind() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(models=200)], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 300
