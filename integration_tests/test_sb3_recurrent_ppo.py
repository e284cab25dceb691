"""sb3-contrib's recurrent PPO with S5 policies, end to end: whatever works with its LSTM policies works here.

The cases are those that sb3-contrib tests its LSTM policies with (`tests/test_lstm.py` and the recurrent
cases of its other tests), in this project's words.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize, VecTransposeImage, is_vecenv_wrapped

import s5_adapters.sb3  # noqa: F401  (registers the policies)
from s5_adapters.sb3 import S5RecurrentPPO

pytestmark = pytest.mark.full_compilation

th.set_num_threads(1)

BOTH = pytest.mark.parametrize("algorithm", [RecurrentPPO, S5RecurrentPPO])
TOPOLOGIES = [
    {},
    {"shared_lstm": True, "enable_critic_lstm": False},
    {"enable_critic_lstm": True, "lstm_hidden_size": 4, "n_lstm_layers": 2},
    {"enable_critic_lstm": False, "lstm_hidden_size": 4, "n_lstm_layers": 2},
]


class AsDict(gym.ObservationWrapper):
    """Hands the observation over under a name."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.observation_space = spaces.Dict({"vector": env.observation_space})

    def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        return {"vector": observation}


class Matrix(gym.Env):
    """Actions are 2 x 2 matrices; episodes end at random."""

    observation_space = spaces.Box(-1, 1, (10,))
    action_space = spaces.Box(-1, 1, (2, 2))

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert action.shape == (2, 2)
        return self.observation_space.sample(), 1.0, bool(self.np_random.random() > 0.8), False, {}


@BOTH
@pytest.mark.parametrize("policy_kwargs", TOPOLOGIES)
def test_vector_observations(algorithm: type[RecurrentPPO], policy_kwargs: dict[str, Any]) -> None:
    algorithm("S5Policy", "CartPole-v1", n_steps=16, seed=0, policy_kwargs=policy_kwargs).learn(32)


@pytest.mark.parametrize(
    "policy_kwargs",
    [
        *TOPOLOGIES[:3],
        {"share_features_extractor": False},
        {"enable_critic_lstm": False, "lstm_hidden_size": 4, "share_features_extractor": False},
    ],
)
def test_images(policy_kwargs: dict[str, Any], tmp_path: Path) -> None:
    env = FakeImageEnv(screen_height=40, screen_width=40, n_channels=3)
    policy_kwargs = {**policy_kwargs, "features_extractor_kwargs": {"features_dim": 32}}
    model = S5RecurrentPPO("CnnS5Policy", env, n_steps=16, n_epochs=2, seed=0, policy_kwargs=policy_kwargs)
    model.learn(32)
    assert is_vecenv_wrapped(model.get_env(), VecTransposeImage)
    obs, _ = env.reset(seed=0)
    action, _ = model.predict(obs, deterministic=True)  # channels last, as the environment gives it
    model.save(tmp_path / "cnn")
    assert np.array_equal(action, S5RecurrentPPO.load(tmp_path / "cnn").predict(obs, deterministic=True)[0])


def test_stock_recurrent_ppo_on_images() -> None:
    env = FakeImageEnv(screen_height=40, screen_width=40, n_channels=3)
    kwargs = {"features_extractor_kwargs": {"features_dim": 16}, "d_model": 8, "n_layers": 1}
    RecurrentPPO("CnnS5Policy", env, n_steps=16, n_epochs=1, policy_kwargs=kwargs).learn(32)


def test_floating_images_need_normalize_images_off() -> None:
    def vec_env() -> VecNormalize:
        env = FakeImageEnv(screen_height=36, screen_width=36, n_channels=1, channel_first=True)
        return VecNormalize(DummyVecEnv([lambda: env]))

    policy_kwargs = {"features_extractor_kwargs": {"features_dim": 8}, "d_model": 8, "n_layers": 1}
    with pytest.raises(AssertionError, match="normalize_images=False"):
        RecurrentPPO("CnnS5Policy", vec_env(), n_steps=16, policy_kwargs=policy_kwargs)
    policy_kwargs |= {"normalize_images": False}
    RecurrentPPO("CnnS5Policy", vec_env(), n_steps=16, batch_size=16, policy_kwargs=policy_kwargs).learn(16)


@BOTH
def test_dictionary_observations(algorithm: type[RecurrentPPO]) -> None:
    env = make_vec_env("CartPole-v1", n_envs=1, wrapper_class=AsDict)
    model = algorithm("MultiInputS5Policy", env, n_steps=32, policy_kwargs={"lstm_hidden_size": 4}).learn(64)
    evaluate_policy(model, env, n_eval_episodes=2, warn=False)


def test_contradicting_topologies_are_assertions_as_in_sb3() -> None:
    for policy_kwargs in (
        {"shared_lstm": True, "enable_critic_lstm": True},
        {"shared_lstm": True},
        {"shared_lstm": True, "enable_critic_lstm": False, "share_features_extractor": False},
    ):
        with pytest.raises(AssertionError):
            RecurrentPPO("S5Policy", "CartPole-v1", n_steps=16, policy_kwargs=policy_kwargs)


@BOTH
def test_continuous_actions_with_state_dependent_exploration_and_clipped_values(algorithm) -> None:
    model = algorithm(
        "S5Policy",
        "Pendulum-v1",
        n_steps=16,
        seed=0,
        sde_sample_freq=4,
        use_sde=True,
        clip_range_vf=0.1,
        policy_kwargs={"lstm_hidden_size": 8, "log_std_init": -1.0, "squash_output": True},
    ).learn(64)
    action, _ = model.predict(model.get_env().reset())
    assert model.action_space.contains(action[0])


def test_matrix_actions() -> None:
    model = RecurrentPPO("S5Policy", Matrix(), n_steps=64, n_epochs=2, policy_kwargs={"d_model": 8}).learn(64)
    evaluate_policy(model, model.get_env(), n_eval_episodes=3)


@BOTH
def test_a_seed_fixes_a_whole_training(algorithm: type[RecurrentPPO]) -> None:
    outcomes = []
    for _ in range(2):
        kwargs = {"net_arch": [], "enable_critic_lstm": True, "lstm_hidden_size": 8}
        model = algorithm(
            "S5Policy",
            "Pendulum-v1",
            seed=0,
            n_steps=50,
            n_epochs=4,
            learning_rate=1e-3,
            policy_kwargs=kwargs,
        ).learn(100)
        env, state, starts, actions = model.get_env(), None, np.ones(1, bool), []
        obs = env.reset()
        for _ in range(50):
            action, state = model.predict(obs, state=state, episode_start=starts, deterministic=True)
            obs, _, starts, _ = env.step(action)
            actions.append(action.item())
        outcomes.append(actions)
    assert outcomes[0] == outcomes[1]


@BOTH
def test_everything_around_training(algorithm: type[RecurrentPPO], tmp_path: Path) -> None:
    """Optimiser class, target_kl, normalisation, callbacks, evaluation, checkpoints, resuming."""
    env = VecNormalize(make_vec_env("CartPole-v1", n_envs=2, seed=0))
    model = algorithm(
        "S5Policy",
        env,
        n_steps=32,
        batch_size=24,
        n_epochs=2,
        seed=0,
        target_kl=0.01,
        policy_kwargs={
            "d_model": 8,
            "optimizer_class": th.optim.AdamW,
            "optimizer_kwargs": {"weight_decay": 1e-3},
            "activation_fn": th.nn.ReLU,
            "ortho_init": False,
        },
    )
    evaluation_env = VecNormalize(make_vec_env("CartPole-v1", n_envs=1), training=False, norm_reward=False)
    callbacks = [
        EvalCallback(evaluation_env, n_eval_episodes=2, eval_freq=32, best_model_save_path=str(tmp_path)),
        CheckpointCallback(save_freq=64, save_path=str(tmp_path), name_prefix="step"),
    ]
    model.learn(256, callback=callbacks)
    assert (tmp_path / "best_model.zip").exists()
    assert isinstance(model.policy.optimizer, th.optim.AdamW)
    resumed = algorithm.load(tmp_path / "step_128_steps.zip", env=env)
    resumed.learn(64, reset_num_timesteps=False)
    assert resumed.num_timesteps == 128 + 64
    returns, lengths = evaluate_policy(
        resumed, env, n_eval_episodes=3, return_episode_rewards=True, warn=False
    )
    assert len(returns) == len(lengths) == 3


def test_lstm_policies_run_on_segments_as_well() -> None:
    model = S5RecurrentPPO("MlpLstmPolicy", "CartPole-v1", n_steps=40, batch_size=16, n_epochs=1, seed=0)
    model.learn(40)
    assert model.rollout_buffer.segment_length < 40
