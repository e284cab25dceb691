"""The configuration and the environments: what is set, what is refused, and the loss of a padded batch."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.tune.registry import ENV_CREATOR, _global_registry

import s5_envs
from s5_adapters.rllib import S5PPOConfig, S5RLModule, check_autoreset, register_envs
from s5_envs.gymnasium import GymnaxVectorEnv
from tests.marks import slow

TINY = {"d_model": 8, "d_state": 8, "encoder": [8], "actor_torso": [8], "critic_torso": [8]}


def same_step(num_envs: int = 2) -> gym.vector.VectorEnv:
    return SyncVectorEnv([lambda: gym.make("CartPole-v1")] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)


def test_it_is_an_ordinary_ppo_config_with_other_defaults() -> None:
    config = S5PPOConfig()
    assert isinstance(config, PPOConfig)
    assert config.rl_module_spec.module_class is S5RLModule
    assert config.model_config["max_seq_len"] == 64
    assert not config.normalize_actions
    config.training(lr=1e-3, minibatch_size=64).rl_module(model_config={"d_model": 16, "max_seq_len": 32})
    assert (config.lr, config.minibatch_size, config.model_config["max_seq_len"]) == (1e-3, 64, 32)
    spec = RLModuleSpec(model_config={"d_model": 32})
    assert config.rl_module(rl_module_spec=spec).rl_module_spec.module_class is S5RLModule


def test_it_survives_the_dictionary_by_which_tune_hands_it_to_ppo() -> None:
    config = S5PPOConfig().environment("RepeatPreviousEasy").rl_module(model_config={"d_model": 16})
    twin = PPOConfig.from_dict(config.to_dict())
    assert twin.rl_module_spec.module_class is S5RLModule
    assert (
        twin.model_config
        == config.model_config
        == {
            "d_model": 16,
            "max_seq_len": 64,
            "vf_share_layers": False,
            "actions_in_env_units": True,
        }
    )
    assert (twin.minibatch_size, twin.normalize_actions) == (1024, False)


def test_naming_an_s5_env_is_enough() -> None:
    for name in ("RepeatPreviousEasy", "s5_envs/RepeatPreviousEasy-v0"):
        config = S5PPOConfig().environment(name, env_config={"k": 3})
        assert _global_registry.contains(ENV_CREATOR, name)
        assert config.gym_env_vectorize_mode == gym.VectorizeMode.VECTOR_ENTRY_POINT
        assert not config.normalize_actions
    config = S5PPOConfig().environment("CartPole-v1")
    assert config.gym_env_vectorize_mode == PPOConfig().gym_env_vectorize_mode


def test_a_minibatch_must_hold_a_row() -> None:
    config = S5PPOConfig().environment("RepeatPreviousEasy").training(minibatch_size=32)
    with pytest.raises(ValueError, match=r"minibatch_size: got 32, expected at least max_seq_len \(64\)"):
        config.validate()
    config.rl_module(model_config={"max_seq_len": 32}).validate()
    spec = RLModuleSpec(module_class=S5RLModule, model_config={"max_seq_len": 33})
    with pytest.raises(ValueError, match=r"max_seq_len \(33\)"):
        config.rl_module(rl_module_spec=spec).validate()


def test_every_environment_is_registered_under_both_names() -> None:
    names = register_envs()
    assert len(names) == 2 * len(s5_envs.registered_ids())
    for name in ("MemoryChain-bsuite", "s5_envs/BattleshipEasy-v0"):
        assert name in names
        assert _global_registry.contains(ENV_CREATOR, name)


def test_a_registered_environment_is_vectorised_or_single() -> None:
    register_envs()
    create = _global_registry.get(ENV_CREATOR, "RepeatPreviousEasy")
    vector = create({"num_envs": 3, "k": 2})
    assert isinstance(vector, GymnaxVectorEnv)
    assert vector.num_envs == 3
    assert vector.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    assert create({}).reset(seed=0)[0].shape == (4,)
    with pytest.raises(ValueError, match="RepeatPreviousEasy has no argument 'kk'; it takes: k, num_decks"):
        create({"kk": 2})
    with pytest.raises(
        ValueError, match=r"got metadata\['autoreset_mode'\] .*expected AutoresetMode.NEXT_STEP"
    ):
        create({"num_envs": 2, "autoreset_mode": "SAME_STEP"})


@pytest.mark.parametrize("name", ["MetaCartPole-v0", "s5_envs/MetaCartPole-v0"])
def test_trials_are_told_in_info(name: str) -> None:
    register_envs()
    envs = _global_registry.get(ENV_CREATOR, name)({"num_envs": 2, "num_trials": 2, "max_episode_length": 3})
    envs.reset(seed=0)
    infos = [envs.step([0, 1])[4] for _ in range(6)]
    assert [info["trial_ended"].tolist() for info in infos] == [[t % 3 == 2] * 2 for t in range(6)]
    assert [info["trial"][0] for info in infos] == [0, 0, 0, 1, 1, 1]
    assert infos[2]["trial_return"] == pytest.approx([1.0, 1.0])


def test_environments_that_reset_within_the_step_are_refused() -> None:
    check_autoreset(SyncVectorEnv([lambda: gym.make("CartPole-v1")]))
    with pytest.raises(
        ValueError, match=r"SyncVectorEnv: got metadata\['autoreset_mode'\] AutoresetMode.SAME"
    ):
        check_autoreset(same_step())
    silent = same_step()
    silent.metadata = {}
    with pytest.raises(ValueError, match=r"got metadata\['autoreset_mode'\] None"):
        check_autoreset(silent)


def test_a_runner_refuses_to_be_built_on_such_an_environment() -> None:
    gym.register("SameStep-v0", vector_entry_point=same_step)
    config = S5PPOConfig().environment("SameStep-v0").rl_module(model_config=TINY)
    config.env_runners(gym_env_vectorize_mode="vector_entry_point", num_envs_per_env_runner=2)
    with pytest.raises(ValueError, match=r"expected AutoresetMode.NEXT_STEP"):
        SingleAgentEnvRunner(config=config)


def tiny(max_seq_len: int, **model_config: Any) -> S5PPOConfig:
    return (
        S5PPOConfig()
        .environment("RepeatPreviousEasy")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=3)
        .rl_module(model_config=TINY | {"max_seq_len": max_seq_len} | model_config)
        .debugging(seed=0)
    )


@pytest.mark.parametrize("critic_memory", ["separate", *slow("shared")])
def test_a_padded_batch_has_the_loss_of_the_unpadded_episodes(critic_memory: str) -> None:
    runner = SingleAgentEnvRunner(config=tiny(52, critic_memory=critic_memory))
    episodes = runner.sample(num_episodes=3)
    assert [len(episode) for episode in episodes] == [51] * 3
    weights = runner.module.get_state()

    def update(max_seq_len: int) -> tuple[float, float]:
        config = tiny(max_seq_len, critic_memory=critic_memory)
        learner = config.build_learner(env=runner.env)
        learner.module[DEFAULT_MODULE_ID].set_state(weights)
        results = learner.update(episodes=copy.deepcopy(episodes))[DEFAULT_MODULE_ID]
        return tuple(
            float(results[name].peek()) for name in ("total_loss", "gradients_default_optimizer_global_norm")
        )

    # An episode fills 52 steps, one of them RLlib's own at the end: exactly one row, or four of 13.
    loss, gradient = update(52)
    assert np.isfinite(loss)
    assert loss != 0.0
    assert update(64) == pytest.approx((loss, gradient), rel=1e-4)
    for max_seq_len in (13, 20):
        assert update(max_seq_len)[0] == pytest.approx(loss, rel=1e-4)
