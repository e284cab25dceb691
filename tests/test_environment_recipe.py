"""The environment of docs/add-an-environment.md, registered from outside, runs wherever the package's do."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import s5_envs
from s5_adapters import load_policy
from s5_adapters.cli import main
from s5_adapters.purejax import Trainer
from s5_envs import gymnasium as gymnasium_side
from s5_envs import registration
from tests.purejax.helpers import small_config

PAGE = Path(__file__).resolve().parents[1] / "docs" / "add-an-environment.md"
ID = "s5_envs/TMaze-v0"


@pytest.fixture(autouse=True)
def recipe() -> Iterator[None]:
    """Run the page's definitions, and forget them afterwards."""
    before = dict(registration._registry)
    definition, _ = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    exec(compile(definition, str(PAGE), "exec", dont_inherit=True), {"__name__": "recipe"})
    yield
    registration._registry.clear()
    registration._registry.update(before)
    for name in ("TMaze", "TMazeLong"):
        gymnasium.registry.pop(f"s5_envs/{name}-v0", None)


def test_gymnasium_steps_and_checks_it() -> None:
    gymnasium_side.register_ids()
    env = gymnasium.make(ID)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*render")
        check_env(env.unwrapped)
    obs, _ = env.reset(seed=0)
    sign = int(obs[:2].argmax())
    rewards = []
    is_over = False
    while not is_over:
        _, reward, is_over, _, _ = env.step(sign)
        rewards.append(reward)
    assert rewards == [0.0] * 5 + [1.0]


def test_the_trainer_and_the_command_line_take_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Trainer(small_config(env_id="TMaze"), run_dir=tmp_path / "run").run()
    assert main(["evaluate", "run", "--episodes", "2"]) == 0
    assert main(["export", "run", "-o", "policy.safetensors"]) == 0
    assert load_policy(tmp_path / "policy.safetensors").env_id == "TMaze"


def test_stable_baselines3_learns_in_it() -> None:
    sb3 = pytest.importorskip("s5_adapters.sb3")
    env = sb3.JaxVecEnv("TMaze", num_envs=4)
    sizes = {"d_model": 4, "n_layers": 1, "net_arch": []}
    model = sb3.S5RecurrentPPO("S5Policy", env, n_steps=8, batch_size=16, n_epochs=1, policy_kwargs=sizes)
    model.learn(32)
    assert model.num_timesteps == 32
    assert all(bool(parameter.isfinite().all()) for parameter in model.policy.parameters())


@pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:.*Overriding environment rllib-single-agent-env-v0:UserWarning")
def test_rllib_samples_and_learns_from_it() -> None:
    rllib = pytest.importorskip("s5_adapters.rllib")
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

    sizes = {"d_model": 8, "d_state": 8, "encoder": [8], "actor_torso": [8], "critic_torso": [8]}
    config = (
        rllib.S5PPOConfig()
        .environment("TMaze")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2)
        .rl_module(model_config=sizes | {"max_seq_len": 8})
        .debugging(seed=0)
    )
    runner = SingleAgentEnvRunner(config=config)
    episodes = runner.sample(num_episodes=3)
    assert [len(episode) for episode in episodes] == [6] * 3
    learner = config.build_learner(env=runner.env)
    results = learner.update(episodes=episodes)["default_policy"]
    assert np.isfinite(float(results["total_loss"].peek()))


def test_its_difficulty_is_an_argument() -> None:
    params = s5_envs.make("TMaze", length=7)[1]
    assert params.max_steps_in_episode == 8
    assert s5_envs.make("TMazeLong")[1].max_steps_in_episode == 51
    with pytest.raises(ValueError, match="TMaze has no argument 'lenght'; it takes: length"):
        s5_envs.make("TMaze", lenght=7)
