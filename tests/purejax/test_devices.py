"""A run split over virtual devices: one device's numbers, sums alone between them, resumed on any number."""

import json
import subprocess
import sys
from typing import Any

import pytest

from s5_adapters.purejax import A2CConfig, PPOConfig, RunConfig, Trainer, read_config
from s5_adapters.purejax.run_folder import write_config
from s5_adapters.purejax.split import Split, split_of
from tests.compilation import environment_of
from tests.documents import CHECKOUT
from tests.purejax import test_multi_task  # noqa: F401  registers
from tests.purejax.helpers import small_config


def on_eight_devices(*arguments: str) -> Any:
    program = [sys.executable, "-m", "tests.purejax.devices_program", *arguments]
    result = subprocess.run(program, cwd=CHECKOUT, env=environment_of(8), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("algorithm", ["ppo", "a2c"])
def test_eight_devices_learn_what_one_does(algorithm):
    """Both draw minibatches in eight groups; observations, rewards and advantages are normalised."""
    found = on_eight_devices(algorithm)
    assert found["params"] < 1e-5
    assert found["moved"] > 1e-3
    assert sum(found["episodes"]) > 0
    for name in ("episode_return", "episode_length", "episodes", "reward_mean", "fault", "fault_env"):
        assert found["metrics"][name] < 1e-5, name
    # Sums of gradients, losses and metrics, and the moments that are exchanged: nothing else crosses.
    collectives = found["collectives"]
    assert collectives.pop("all-reduce") > 0
    assert collectives.pop("all-gather") > 0
    assert set(collectives.values()) == {0}


def test_a_run_on_four_devices_resumes_on_four_with_the_same_bits_and_on_two(tmp_path):
    found = on_eight_devices("resumed", str(tmp_path))
    assert found["begun"] == 4
    assert found["four"]
    assert found["restored"]
    assert found["two"] < 1e-5
    assert found["evaluation"] == 64
    alone, on_four = found["planned"]
    assert on_four < alone  # a device's share
    assert len(set(found["parameters"])) == 1


def test_groups_are_those_of_the_devices_begun_on_where_they_can_be_shared_out():
    assert split_of(1, 1) == Split()
    assert split_of(4, 2) == Split(2, 4)
    assert split_of(4, 1) == Split(1, 4)
    assert split_of(4, 8) == Split(8, 8)
    assert split_of(4, 3) == Split(3, 3)


@pytest.mark.parametrize(
    ("config", "devices", "message"),
    [
        (
            PPOConfig(),
            3,
            r"num_envs=32 does not divide by devices=3 and num_minibatches=4: .* of 12, or .* 2, 4, 8",
        ),
        (PPOConfig(), 16, r"expected a multiple of 64, or devices one of 1, 2, 4, 8"),
        (A2CConfig(num_envs=1), 2, r"num_envs=1 does not divide by devices=2: .* devices one of 1"),
    ],
)
def test_unequal_shares_are_refused_in_one_line(config, devices, message):
    with pytest.raises(ValueError, match=rf"^devices: [^\n]*{message}$"):
        config.check_devices(devices)


def test_more_devices_than_there_are_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^devices: got 2, expected at most the 1 there are \(cpu\)$"):
        Trainer(small_config(), devices=2, run_dir=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    write_config(tmp_path / "run", RunConfig(small_config(), devices=2))
    with pytest.raises(ValueError, match="begun on 2 devices, and there are 1: go on with --devices 1"):
        Trainer.resume(tmp_path / "run")


def test_families_in_one_batch_go_on_on_as_many_devices_as_before(tmp_path):
    """Which state belongs to which observation is known only there."""
    write_config(tmp_path / "run", RunConfig(small_config(env_id="TwoFamilies"), devices=2))
    with pytest.raises(ValueError, match=r"^devices: TwoFamilies divides .* as many devices as the run was"):
        Trainer.resume(tmp_path / "run", devices=1)


def test_a_run_from_before_there_were_several_was_on_one(tmp_path):
    write_config(tmp_path / "run", RunConfig(small_config()))
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    del config["devices"]
    path.write_text(json.dumps(config))
    assert read_config(tmp_path / "run").devices == 1
