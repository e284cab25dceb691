"""Files of older code load, act as they did, and go on: `tests/formats/`, a folder for each commit."""

from __future__ import annotations

import contextlib
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.models.catalog import ModelCatalog
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.vec_env import VecNormalize

from s5_adapters import Policy, load_policy, save_policy
from s5_adapters.cli import main
from s5_adapters.purejax import Trainer, restore_policy
from s5_adapters.purejax.logging import read_log
from s5_adapters.rllib import register_envs
from s5_adapters.rllib._model_v2 import S5Model
from s5_adapters.sb3 import S5Policy, S5RecurrentPPO
from tests.formats.make import (
    STOPPED_AFTER,
    cartpole,
    play_module,
    play_old_stack,
    play_rllib,
    play_sb3,
    read_outputs,
)
from tests.portable import assert_agree, core_outputs, in_rllib, in_sb3, rllib_outputs, sb3_outputs

FOLDER = Path(__file__).parent / "formats" / "9a225f5"

# Ray forks before it executes its own programs, where nothing of JAX is used; and it leaves files and
# sockets to the garbage collector, which pytest reports as unraisable.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*Overriding environment rllib-single-agent-env-v0:UserWarning"),
    pytest.mark.filterwarnings(r"ignore:.[\w.]+. .*deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TIMINGS = {"seconds", "steps_per_second"}
LOGGED_SINCE = {"gradient_steps"}
"""What a run logs today and did not when these files were made."""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)


def unpack(name: str, folder: Path) -> Path:
    with zipfile.ZipFile(FOLDER / f"{name}.zip") as archive:
        archive.extractall(folder)
    return folder


def assert_outputs(found: dict[str, np.ndarray], name: str, atol: float = 1e-5) -> None:
    """What a model gives is what it gave when its file was written."""
    _, _, expected = read_outputs(FOLDER / name)
    assert found.keys() == expected.keys()
    for output, value in expected.items():
        np.testing.assert_allclose(found[output], value, rtol=1e-5, atol=atol, err_msg=output)


def assert_same_policy(one: Policy, other: Policy, rtol: float = 0.0, atol: float = 0.0) -> None:
    def close(a: Any, b: Any) -> None:
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)

    assert one.config == other.config
    jax.tree.map(close, one.params, other.params)
    assert (one.obs_statistics is None) == (other.obs_statistics is None)
    if one.obs_statistics is not None and other.obs_statistics is not None:
        for name in ("mean", "variance", "epsilon", "clip", "samples"):
            close(getattr(one.obs_statistics, name), getattr(other.obs_statistics, name))


# --- policy files -------------------------------------------------------------------------------------


def policy_file(name: str, tmp_path: Path) -> Path:
    if name == "image":
        unpack("image", tmp_path)
        return tmp_path / "image.safetensors"
    return FOLDER / f"{name}.safetensors"


@pytest.mark.parametrize("name", ["vector", "box", "image"])
def test_a_policy_file_acts_as_it_did_everywhere_and_is_saved_again(name: str, tmp_path: Path) -> None:
    path = policy_file(name, tmp_path)
    policy = load_policy(path)
    observations, starts, expected = read_outputs(FOLDER / name)
    obs = observations["obs"]
    inputs, values = core_outputs(policy, obs, starts)
    assert_outputs({"inputs": inputs, "values": values}, name)
    if name == "box":  # once loaded, all policies are alike: tests/test_round_trip.py
        as_then = expected["inputs"], expected["values"]
        assert_agree(policy, as_then, sb3_outputs(in_sb3(str(path), policy.config), obs, starts))
        assert_agree(policy, as_then, rllib_outputs(in_rllib(str(path), policy.config), obs, starts))
    save_policy("again.safetensors", policy)
    again = load_policy("again.safetensors")
    assert_same_policy(again, policy)
    assert (again.env_id, again.env_kwargs, again.training) == (
        policy.env_id,
        policy.env_kwargs,
        policy.training,
    )


def test_a_policy_file_keeps_what_is_said_about_it() -> None:
    policy = load_policy(FOLDER / "vector.safetensors")
    assert (policy.env_id, policy.training) == ("RepeatPreviousEasy", {"steps": 320, "note": "made by hand"})
    box = load_policy(FOLDER / "box.safetensors")
    assert box.obs_statistics is not None
    assert (box.env_id, box.obs_statistics.samples, box.obs_statistics.clip) == ("Pendulum-v1", 77.0, 10.0)


@pytest.mark.parametrize("name", ["vector", "box"])
def test_a_run_starts_from_a_policy_file(name: str) -> None:
    path = FOLDER / f"{name}.safetensors"
    sizes = ["--num-envs", "2", "--num-steps", "4", "--num-minibatches", "1", "--total-steps", "8"]
    options = [*sizes, "--num-epochs", "1", "--learning-rate", "1e-8", "--quiet"]
    if name == "box":
        options.append("--normalize-observations")
    assert main(["train", "--weights", str(path), "--run-dir", "run", *options]) == 0
    trained, policy = restore_policy("run").to_portable(), load_policy(path)
    assert trained.env_id == policy.env_id
    assert trained.config == policy.config
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), trained.params, policy.params)
    if policy.obs_statistics is not None:
        assert trained.obs_statistics is not None
        assert trained.obs_statistics.samples > policy.obs_statistics.samples


# --- the trainer's run --------------------------------------------------------------------------------


def assert_ended_as_then(run_dir: Path) -> None:
    expected = json.loads((FOLDER / "run_log.json").read_text())
    found = [row for row in read_log(run_dir) if row["update"] > STOPPED_AFTER]
    for row, row_then in zip(found, expected, strict=True):
        assert row.keys() - LOGGED_SINCE == row_then.keys()
        for name in row_then.keys() - TIMINGS:
            if row_then[name] is None:
                assert row[name] is None
            else:
                assert row[name] == pytest.approx(row_then[name], rel=1e-4, abs=1e-5), (row["update"], name)


def test_a_run_goes_on_and_ends_as_it_would_have(tmp_path: Path) -> None:
    trainer = Trainer.resume(unpack("run", tmp_path / "run"))
    assert trainer.update == STOPPED_AFTER
    trainer.run()
    assert_ended_as_then(tmp_path / "run")
    end = load_policy(FOLDER / "run_end.safetensors")
    assert_same_policy(restore_policy(tmp_path / "run").to_portable(), end, rtol=1e-4, atol=1e-6)


def test_the_command_line_exports_and_resumes_a_run(tmp_path: Path) -> None:
    run_dir = str(unpack("run", tmp_path / "run"))
    assert main(["export", run_dir, "-o", "half.safetensors"]) == 0
    assert load_policy("half.safetensors").training["updates"] == STOPPED_AFTER
    assert main(["train", "--resume", run_dir, "--quiet"]) == 0
    assert_ended_as_then(tmp_path / "run")
    assert main(["export", run_dir, "-o", "whole.safetensors"]) == 0
    whole, end = (load_policy(path) for path in ("whole.safetensors", FOLDER / "run_end.safetensors"))
    assert_same_policy(whole, end, rtol=1e-4, atol=1e-6)
    assert whole.training.keys() >= end.training.keys()


# --- Stable-Baselines3 --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("sb3_stock", RecurrentPPO),
        ("sb3_segments", S5RecurrentPPO),
        ("sb3_dict", S5RecurrentPPO),
        ("sb3_weights", S5RecurrentPPO),
    ],
)
def test_a_stable_baselines3_model_predicts_as_it_did_and_goes_on(
    name: str, algorithm: type[RecurrentPPO], tmp_path: Path
) -> None:
    unpack("sb3", tmp_path)
    env = cartpole(dictionary=name == "sb3_dict")
    if name == "sb3_stock":
        env = VecNormalize.load(str(tmp_path / "sb3_stock_vecnormalize.pkl"), env)
    model = algorithm.load(tmp_path / name, env=env)
    obs, starts, _ = read_outputs(FOLDER / name)
    assert_outputs(play_sb3(model.policy, obs, starts), name)
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    assert model.num_timesteps == 16
    model.learn(16, reset_num_timesteps=False)
    assert model.num_timesteps == 32
    assert any(not torch.equal(a, b) for a, b in zip(before, model.policy.parameters(), strict=True))
    model.save("again")
    algorithm.load("again")


def test_a_stable_baselines3_policy_predicts_as_it_did(tmp_path: Path) -> None:
    unpack("sb3", tmp_path)
    policy = S5Policy.load(str(tmp_path / "sb3_policy.pth"))
    obs, starts, _ = read_outputs(FOLDER / "sb3_weights")  # the model whose policy it is
    assert_outputs(play_sb3(policy, obs, starts), "sb3_weights")


@pytest.mark.parametrize("name", ["sb3_stock", "sb3_segments", "sb3_weights"])
def test_a_stable_baselines3_model_is_exported(name: str, tmp_path: Path) -> None:
    unpack("sb3", tmp_path)
    more = ["--vecnormalize", "sb3_stock_vecnormalize.pkl"] if name == "sb3_stock" else []
    assert main(["export", f"{name}.zip", *more]) == 0
    policy = load_policy("policy.safetensors")
    assert policy.training == {"trainer": "stable_baselines3", "steps": 16}
    assert (policy.obs_statistics is None) == (name == "sb3_segments")
    if name != "sb3_stock":  # there the observations were normalised before the policy saw them
        obs, starts, expected = read_outputs(FOLDER / name)
        starts[0] = True
        _, values = core_outputs(policy, obs["obs"], starts)
        np.testing.assert_allclose(values, expected["values"], rtol=1e-5, atol=1e-5)


# --- RLlib --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def restored(path: Path) -> Iterator[Algorithm]:
    """An algorithm from its checkpoint, in a Ray of its own."""
    ray.init(num_cpus=1, include_dashboard=False, address="local", log_to_driver=False)
    try:
        register_envs()
        ModelCatalog.register_custom_model("s5", S5Model)  # Ray forgets it when it is shut down
        algorithm = Algorithm.from_checkpoint(str(path))
        yield algorithm
        algorithm.stop()
    finally:
        ray.shutdown()


@pytest.mark.parametrize(
    ("name", "play"),
    [
        ("rllib", play_rllib),
        pytest.param(
            "rllib_old",
            play_old_stack,
            marks=pytest.mark.skipif(
                sys.version_info[:2] != (3, 11), reason="RLlib pickled Python 3.11 code"
            ),
        ),
    ],
    ids=["rllib", "rllib_old"],
)
def test_an_rllib_checkpoint_acts_as_it_did_and_goes_on(name: str, play: Any, tmp_path: Path) -> None:
    unpack(name, tmp_path / name)
    obs, starts, expected = read_outputs(FOLDER / name)
    with restored(tmp_path / name) as algorithm:
        assert_outputs(play(algorithm, obs["obs"], starts), name)
        assert algorithm.iteration == 1
        result = algorithm.train()
        assert result["training_iteration"] == 2
        assert not np.allclose(play(algorithm, obs["obs"], starts)["inputs"], expected["inputs"], atol=1e-6)


def test_an_rllib_module_acts_as_it_did(tmp_path: Path) -> None:
    module = RLModule.from_checkpoint(unpack("rllib_module", tmp_path / "module"))
    obs, starts, _ = read_outputs(FOLDER / "rllib_module")
    assert_outputs(play_module(module, obs["obs"], starts), "rllib_module")


@pytest.mark.parametrize("name", ["rllib", "rllib_module"])
def test_an_rllib_checkpoint_is_exported(name: str, tmp_path: Path) -> None:
    assert main(["export", str(unpack(name, tmp_path / name)), "-o", "policy.safetensors"]) == 0
    policy = load_policy("policy.safetensors")
    assert policy.env_id == ("RepeatPreviousEasy" if name == "rllib" else None)
    obs, starts, _ = read_outputs(FOLDER / name)
    inputs, values = core_outputs(policy, obs["obs"], starts)
    assert_outputs({"inputs": inputs, "values": values}, name)
