"""`s5-adapters export`: what it recognises, what it refuses, that it leaves nothing half done."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch as th
from ray.rllib.algorithms.ppo import PPO
from stable_baselines3.common.env_util import make_vec_env

from s5_adapters import load_policy, save_policy
from s5_adapters.cli import main
from s5_adapters.core import Box
from s5_adapters.rllib import S5PPOConfig
from s5_adapters.sb3 import S5RecurrentPPO
from tests.portable import in_rllib, make_policy

SMALL: dict[str, Any] = {"d_model": 8, "n_layers": 1, "net_arch": [4]}

pytestmark = [
    pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning"),
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    th.set_num_threads(1)
    monkeypatch.chdir(tmp_path)


def save_model(**arguments: Any) -> S5RecurrentPPO:
    """An SB3 model as `model.zip` here; an untrained one holds the same parts."""
    policy = {**SMALL, **arguments.pop("policy_kwargs", {})}
    env = make_vec_env(arguments.pop("env", "CartPole-v1"), n_envs=1)
    model = S5RecurrentPPO("S5Policy", env, n_steps=8, batch_size=8, policy_kwargs=policy, **arguments)
    model.save("model")
    return model


def checkpoint(policy: Any, **config: Any) -> Path:
    """The parts of an algorithm's checkpoint that hold its module, without running an algorithm."""
    folder = Path("checkpoint")
    settings = S5PPOConfig().environment("RepeatPreviousEasy", env_config={"k": 3}).get_state() | config
    module = folder / "learner_group" / "learner" / "rl_module" / "default_policy"
    in_rllib(policy, policy.config).save_to_path(module.absolute())
    constructor = {"class": PPO, "ctor_args_and_kwargs": ((settings,), {})}
    (folder / "class_and_ctor_args.pkl").write_bytes(pickle.dumps(constructor))
    return folder


def test_a_stable_baselines3_model(capsys: pytest.CaptureFixture[str]) -> None:
    model = save_model()
    assert main(["export", "model.zip"]) == 0
    assert "wrote policy.safetensors from a Stable-Baselines3 model" in (out := capsys.readouterr().out)
    assert "unpickles" in out
    jax.tree.map(
        np.testing.assert_array_equal,
        load_policy("policy.safetensors").params,
        model.policy.to_policy().params,
    )


def test_an_rllib_checkpoint_and_a_module_of_one() -> None:
    policy = make_policy(action=Box((-2.0,), (2.0,)), statistics=True)
    folder = checkpoint(policy)
    module = folder / "learner_group" / "learner" / "rl_module" / "default_policy"
    for source in (folder, module):
        assert main(["export", str(source), "-o", "out.safetensors"]) == 0
        found = load_policy("out.safetensors")
        jax.tree.map(np.testing.assert_array_equal, found.params, policy.params)
        np.testing.assert_array_equal(found.obs_statistics.mean, policy.obs_statistics.mean)
        assert (found.env_id, found.env_kwargs) == (
            ("RepeatPreviousEasy", {"k": 3}) if source == folder else (None, {})
        )


def test_a_policy_file_becomes_a_program() -> None:
    save_policy("mine.safetensors", make_policy())
    assert main(["export", "mine.safetensors", "--format", "stablehlo"]) == 0
    assert jax.export.deserialize(bytearray(Path("policy.stablehlo").read_bytes())).in_avals[0].shape[1:] == (
        3,
    )


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"env": "Pendulum-v1", "use_sde": True}, "gSDE (use_sde=True)"),
        ({"policy_kwargs": {"activation_fn": th.nn.SiLU}}, "the activation SiLU"),
    ],
)
def test_an_unportable_model_is_refused_in_one_line(
    arguments: dict[str, Any], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(**arguments)
    check_refusal(["model.zip"], f"not portable: {part}", capsys)


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ({"normalize_actions": True}, "actions that RLlib rescales (normalize_actions=True)"),
        ({"_env_to_module_connector": print}, "the connector between environment and module"),
    ],
)
def test_an_unportable_checkpoint_is_refused_in_one_line(
    config: dict[str, Any], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoint(make_policy(action=Box((-2.0,), (2.0,))), **config)
    check_refusal([str(folder)], f"not portable: {part}", capsys)


def test_what_cannot_be_read_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.txt").write_text("no policy")
    check_refusal(["text.txt"], "text.txt: expected the folder of a run, a Stable-Baselines3 model", capsys)
    Path("bad").mkdir()
    Path("bad/class_and_ctor_args.pkl").write_bytes(b"no pickle")
    check_refusal(["bad"], "bad: not a readable RLlib checkpoint", capsys)
    with zipfile.ZipFile("other.zip", "w") as archive:
        archive.writestr("data", "{}")
    check_refusal(["other.zip"], "not portable: the policy class None", capsys)
    save_policy("mine.safetensors", make_policy())
    check_refusal(["mine.safetensors", "--vecnormalize", "x.pkl"], "vecnormalize: got x.pkl for", capsys)
    check_refusal(["mine.safetensors", "--checkpoint", "3"], "checkpoint: got 3 for mine.safetensors", capsys)
    save_model()
    check_refusal(
        ["model.zip", "--vecnormalize", "text.txt"], "text.txt: not a file of VecNormalize's", capsys
    )
    check_refusal(["model.zip", "--vecnormalize", "nowhere.pkl"], "nowhere.pkl", capsys)


def test_a_damaged_model_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    save_model()
    content = bytearray(Path("model.zip").read_bytes())
    with zipfile.ZipFile("model.zip") as archive:
        start = archive.getinfo("policy.pth").header_offset
    content[start + 200 : start + 260] = bytes(60)
    Path("model.zip").write_bytes(content)
    check_refusal(["model.zip"], "model.zip: not a readable model of Stable-Baselines3's: ", capsys)
    save_model()
    Path("vec.pkl").write_bytes(b"cnowhere\nNothing\n.")  # a class that is nowhere
    check_refusal(["model.zip", "--vecnormalize", "vec.pkl"], "vec.pkl: not a file of VecNormalize's", capsys)
    folder = checkpoint(make_policy())
    for state in folder.rglob("module_state.*"):
        state.write_bytes(b"cnowhere\nNothing\n.")
    check_refusal([str(folder)], "default_policy: not a readable RLlib checkpoint: ", capsys)


def check_refusal(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path.name for path in Path().iterdir())
    capsys.readouterr()
    assert main(["export", *arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert sorted(path.name for path in Path().iterdir()) == before
