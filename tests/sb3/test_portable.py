"""S5Policy and the portable policy: start from one, become one, and refuse what is not portable."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import jax
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import VecNormalize

from s5_adapters.core import Box, MultiDiscrete
from s5_adapters.core.files.weights import save_policy
from s5_adapters.sb3 import JaxVecEnv, MultiInputS5Policy, S5Policy, S5RecurrentPPO
from s5_adapters.sb3.portable import policy_from_zip, to_portable
from tests.portable import assert_agree, core_outputs, in_sb3, make_policy, observe, sb3_outputs

BOX = Box((-1.0, -2.0), (1.0, 2.0))
VECTOR = spaces.Box(-1, 1, (3,))
SMALL: dict[str, Any] = {"d_model": 8, "n_layers": 1, "net_arch": [4]}


class Extractor(FlattenExtractor):
    pass


class Own(S5Policy):
    pass


@pytest.mark.parametrize(
    "changes",
    [
        {"action": MultiDiscrete((2, 3)), "critic_memory": "separate", "encoder": (), "statistics": True},
        {"action": BOX, "obs_shape": (36, 36, 2), "cnn_features": 6, "encoder": (), "actor_torso": ()},
    ],
    ids=["separate", "image"],
)
def test_it_acts_as_the_weights_do_and_gives_them_back(changes: dict[str, Any]) -> None:
    policy = make_policy(**changes)
    mine = in_sb3(policy, policy.config)
    obs, starts = observe(policy.config, 12, 2)
    assert_agree(policy, core_outputs(policy, obs, starts), sb3_outputs(mine, obs, starts))
    back = mine.to_policy()
    assert back.config == policy.config
    jax.tree.map(np.testing.assert_array_equal, back.params, policy.params)
    assert back.obs_statistics is policy.obs_statistics


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"d_model": 16}, r"memory_config\['d_model'\] 8, expected 16"),
        ({"memory": "lstm"}, "memory 's5', expected 'lstm'"),
        ({"net_arch": [9]}, r"actor_torso \(7,\), expected \(9,\)"),
        ({"encoder": ()}, r"encoder \(6,\), expected \(\)"),
        ({"enable_critic_lstm": True}, "critic_memory 'shared', expected 'separate'"),
        ({"use_sde": True}, r"not portable: gSDE"),
        ({"features_extractor_class": Extractor}, "not portable: the features extractor Extractor"),
        ({"activation_fn": th.nn.ReLU}, "activation 'tanh', expected 'relu'"),
    ],
)
def test_weights_of_another_network_are_refused_in_one_line(arguments: dict[str, Any], message: str) -> None:
    policy = make_policy(action=BOX)
    with pytest.raises(ValueError, match=message) as caught:
        in_sb3(policy, policy.config, **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spaces_given", "message"),
    [
        ((spaces.Box(-1, 1, (5,)), spaces.Discrete(4)), r"obs_shape \(3,\), expected \(5,\)"),
        ((VECTOR, spaces.Discrete(3)), r"action Discrete\(n=4\), expected Discrete\(n=3\)"),
        ((spaces.Discrete(3), spaces.Discrete(4)), r"not portable: observations of Discrete\(3\)"),
    ],
)
def test_weights_for_other_spaces_are_refused(spaces_given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        S5Policy(*spaces_given, lambda _: 1e-3, weights=make_policy())


def test_a_file_that_is_not_there_or_damaged_is_named(tmp_path: Any) -> None:
    path = tmp_path / "policy.safetensors"
    with pytest.raises(ValueError, match=r"weights: .*policy.safetensors: No such file"):
        S5Policy(VECTOR, spaces.Discrete(4), lambda _: 1e-3, weights=path)
    path.write_bytes(b"no policy")
    with pytest.raises(ValueError, match=r"policy.safetensors: not a safetensors file"):
        S5Policy(VECTOR, spaces.Discrete(4), lambda _: 1e-3, weights=str(path))


@pytest.mark.parametrize(
    ("cls", "obs", "action", "arguments", "part"),
    [
        (MultiInputS5Policy, spaces.Dict({"a": VECTOR}), None, {}, "Dict observations"),
        (S5Policy, VECTOR, None, {"features_extractor_class": Extractor}, "the features extractor Extractor"),
        (S5Policy, VECTOR, spaces.Box(-1, 1, (2,)), {"use_sde": True}, r"gSDE \(use_sde=True\)"),
        (S5Policy, VECTOR, None, {"activation_fn": th.nn.SiLU}, "the activation SiLU"),
        (Own, VECTOR, None, {}, "the policy class Own"),
        (S5Policy, spaces.Discrete(5), None, {}, r"observations of Discrete\(5\)"),
        (S5Policy, VECTOR, spaces.Discrete(2, start=1), {}, "actions of Discrete"),
        (
            S5Policy,
            VECTOR,
            None,
            {"share_features_extractor": False, "encoder": (4,)},
            "the critic's own encoder",
        ),
        (S5Policy, spaces.Box(0, 255, (1, 36, 36), np.uint8), None, {}, "an image without a CNN"),
    ],
)
def test_what_is_not_portable_is_refused_by_its_name(
    cls: type[S5Policy], obs: gym.Space, action: gym.Space | None, arguments: dict[str, Any], part: str
) -> None:
    policy = cls(obs, action or spaces.Discrete(2), lambda _: 1e-3, **{**SMALL, **arguments})
    with pytest.raises(ValueError, match=f"^not portable: {part}") as caught:
        policy.to_policy()
    assert "\n" not in str(caught.value)


def test_what_only_looks_unportable_is_not() -> None:
    policy = S5Policy(
        VECTOR,
        spaces.Discrete(2),
        lambda _: 1e-3,
        d_model=8,
        net_arch=[],
        activation_fn=th.nn.SiLU,
        share_features_extractor=False,
    )
    again = in_sb3(policy.to_policy(), policy.to_policy().config, share_features_extractor=False)
    jax.tree.map(np.testing.assert_array_equal, again.to_policy().params, policy.to_policy().params)


@pytest.fixture
def env() -> JaxVecEnv:
    return JaxVecEnv("RepeatPreviousEasy", num_envs=2)


def test_fine_tuning_moves_the_weights_and_the_saved_model_stands_alone(
    tmp_path: Any, env: JaxVecEnv
) -> None:
    policy = make_policy(obs_shape=env.observation_space.shape, statistics=True)
    path = tmp_path / "policy.safetensors"
    save_policy(path, policy)
    ppo = S5RecurrentPPO("S5Policy", env, n_steps=16, batch_size=16, policy_kwargs={"weights": str(path)})
    jax.tree.map(np.testing.assert_array_equal, ppo.policy.to_policy().params, policy.params)
    ppo.learn(32)
    tuned = ppo.policy.to_policy()
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), policy.params, tuned.params)
    assert all(change > 0 for change in jax.tree.leaves(moved))
    ppo.save(tmp_path / "model")
    ppo.policy.save(tmp_path / "policy")
    path.unlink()
    for again in (S5RecurrentPPO.load(tmp_path / "model").policy, S5Policy.load(tmp_path / "policy")):
        jax.tree.map(np.testing.assert_array_equal, again.to_policy().params, tuned.params)
        np.testing.assert_array_equal(again.normalizer.mean, policy.obs_statistics.mean)
    exported = policy_from_zip(tmp_path / "model.zip")
    jax.tree.map(np.testing.assert_array_equal, exported.params, tuned.params)
    assert exported.obs_statistics.samples == policy.obs_statistics.samples == 77.0
    assert exported.training == {"trainer": "stable_baselines3", "steps": 32}


def test_vecnormalize_travels_along(tmp_path: Any, env: JaxVecEnv) -> None:
    wrapped = VecNormalize(env, clip_obs=1.5, epsilon=1e-3)
    ppo = RecurrentPPO("S5Policy", wrapped, n_steps=16, batch_size=16, policy_kwargs=SMALL).learn(32)
    ppo.save(tmp_path / "model")
    wrapped.save(tmp_path / "normal.pkl")
    policy = policy_from_zip(tmp_path / "model.zip", tmp_path / "normal.pkl")
    assert policy.obs_statistics.samples == pytest.approx(wrapped.obs_rms.count)
    obs, starts = observe(policy.config, 10, 2)
    mine = core_outputs(policy, obs, starts)
    assert_agree(policy, mine, sb3_outputs(ppo.policy, wrapped.normalize_obs(obs), starts))
    assert_agree(policy, mine, sb3_outputs(in_sb3(policy, policy.config), obs, starts))
    with pytest.raises(ValueError, match="vecnormalize: this policy normalises observations itself"):
        to_portable(in_sb3(policy, policy.config), policy.obs_statistics)
    narrow = make_policy(obs_shape=(2,), statistics=True).obs_statistics
    with pytest.raises(
        ValueError, match=r"vecnormalize: its observations have shape \(2,\), expected \(4,\)"
    ):
        to_portable(ppo.policy, narrow)


def test_a_zip_of_another_policy_is_refused(tmp_path: Any) -> None:
    env = make_vec_env("CartPole-v1", n_envs=1)
    RecurrentPPO("MlpLstmPolicy", env, n_steps=8, batch_size=8).save(tmp_path / "lstm")
    with pytest.raises(ValueError, match="not portable: the policy class RecurrentActorCriticPolicy"):
        policy_from_zip(tmp_path / "lstm.zip")
