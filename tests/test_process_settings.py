"""What importing and building set in a process: nothing, and what JAX reads once, where it is still read."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

OURS = ("JAX_CPU_ENABLE_ASYNC_DISPATCH", "XLA_PYTHON_CLIENT_PREALLOCATE")

BUILD = """
import os, jax, torch
from s5_adapters.torch_bridge import JaxModule, jax2torch

def settings():
    return jax.config.read("jax_cpu_enable_async_dispatch"), os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE")

def compute():  # a write right behind a call never reaches what was called
    square = jax2torch(lambda x: (jax.numpy.sin(x) @ x.T).sum())
    for _ in range(5):
        x = torch.ones(300, 300, requires_grad=True)
        y = square(x)
        y.backward()
        gradient = x.grad.clone()
        with torch.no_grad():
            x.mul_(7.0)
        assert torch.allclose(y, torch.sin(torch.ones(())) * 300**3, rtol=1e-4)
        assert torch.allclose(x.grad, gradient)
"""


def run(program: str, **said: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment | said, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("module", "host"),
    [
        ("s5_adapters.torch_bridge", "torch"),
        ("s5_adapters.sb3", "sb3_contrib"),
        ("s5_adapters.rllib", "ray.rllib.algorithms.ppo"),
    ],
)
def test_importing_changes_neither_jaxs_configuration_nor_the_environment(module: str, host: str) -> None:
    run(f"""
import os, jax, {host}
from jax._src import xla_bridge
before = dict(jax.config.values), dict(os.environ)
import {module}
assert jax.config.values == before[0]
assert dict(os.environ) == before[1]
assert not xla_bridge.backends_are_initialized()
""")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, (False, "false")),
        ({"JAX_CPU_ENABLE_ASYNC_DISPATCH": "true"}, (True, "false")),
        ({"XLA_PYTHON_CLIENT_PREALLOCATE": "true"}, (False, "true")),
    ],
)
@pytest.mark.parametrize("build", ["jax2torch(abs)", "JaxModule({'w': [1.0]})"])
def test_building_a_model_makes_the_settings_that_the_environment_leaves_open(
    build: str, said: dict[str, str], expected: tuple[bool, str]
) -> None:
    run(BUILD + f"{build}\nassert settings() == {expected}, settings()\ncompute()", **said)


def test_once_jax_has_computed_nothing_is_set_and_results_are_the_same() -> None:
    run(BUILD + "jax.numpy.ones(3).sum()\ncompute()\nassert settings() == (True, None), settings()")


def test_adapters_settle_before_they_compute() -> None:
    run("""
import jax
from gymnasium import spaces
from s5_adapters.sb3 import JaxVecEnv
JaxVecEnv("RepeatPreviousEasy", num_envs=1)
assert jax.config.read("jax_cpu_enable_async_dispatch") is False
""")
    run("""
import jax, torch
from gymnasium import spaces
from s5_adapters.sb3 import S5Policy
S5Policy(spaces.Box(-1, 1, (3,)), spaces.Discrete(2), lambda _: 0.0, d_model=2, d_state=2, n_layers=1)
assert jax.config.read("jax_cpu_enable_async_dispatch") is False
""")
    run("""
import jax
from s5_adapters.rllib._envs import env_creator
env_creator("RepeatPreviousEasy")({})
assert jax.config.read("jax_cpu_enable_async_dispatch") is False
""")
