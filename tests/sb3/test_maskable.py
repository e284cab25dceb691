"""`S5MaskableRecurrentPPO`: nothing forbidden is done, and training computes the rollout's probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib.common.envs import (
    InvalidActionEnvDiscrete,
    InvalidActionEnvMultiBinary,
    InvalidActionEnvMultiDiscrete,
)
from sb3_contrib.common.maskable.callbacks import MaskableEvalCallback
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv, IdentityEnv, IdentityEnvBox

from s5_adapters import load_policy, save_policy
from s5_adapters.core.network.masks import MASKED, MaskedObservation
from s5_adapters.sb3 import JaxVecEnv, S5MaskableRecurrentPPO, S5Policy, S5RecurrentPPO
from s5_adapters.sb3.maskable import MaskableCnnS5Policy
from s5_adapters.sb3.masked import MaskedCategorical, MaskedMultiCategorical
from tests.guarded import ACTIONS, LENGTH, GuardedPairs

SMALL: dict[str, Any] = {"d_model": 8, "d_state": 8, "n_layers": 1, "net_arch": []}


def make(env: Any, **arguments: Any) -> S5MaskableRecurrentPPO:
    arguments = {"n_steps": 32, "batch_size": 64, "n_epochs": 2, "seed": 0} | arguments
    policy = arguments.pop("policy", "S5Policy")
    return S5MaskableRecurrentPPO(policy, env, policy_kwargs=dict(SMALL), **arguments)


def test_distributions_by_hand() -> None:
    dist = MaskedCategorical(3)
    dist.action_masks = th.tensor([[True, False, True]])
    dist.proba_distribution(th.tensor([[0.3, 5.0, -0.2]], requires_grad=True))
    p = np.exp([0.3, -0.2]) / np.exp([0.3, -0.2]).sum()
    log_probs = [float(dist.log_prob(th.tensor([i])).detach()) for i in range(3)]
    np.testing.assert_allclose([log_probs[0], log_probs[2]], np.log(p), rtol=1e-5)
    assert np.exp(log_probs[1]) == 0
    assert log_probs[1] <= MASKED
    np.testing.assert_allclose(dist.entropy().detach(), [-(p * np.log(p)).sum()], rtol=1e-5)
    assert dist.mode().tolist() == [0]

    both = MaskedMultiCategorical([3, 2])
    both.action_masks = th.tensor([[True, False, True, False, True]])
    both.proba_distribution(th.tensor([[0.3, 5.0, -0.2, 7.0, 0.0]]))
    np.testing.assert_allclose(both.entropy(), dist.entropy().detach(), rtol=1e-5)
    assert both.mode().tolist() == [[0, 1]]


def test_a_rollout_does_nothing_forbidden_and_training_agrees_with_it() -> None:
    env = JaxVecEnv("Guarded", num_envs=4)
    assert env.observation_space == spaces.Box(0, 1, (ACTIONS,), np.float32)
    model = make(env)
    with th.no_grad():
        model.policy.action_net.bias.copy_(th.tensor([9.0, -9.0, 4.0, -4.0]))
    model.learn(32 * 4)
    buffer = model.rollout_buffer
    masks = buffer.action_masks
    assert masks.shape == (32, 4, ACTIONS)
    assert (masks.sum(-1) == 2).all()
    actions = buffer.actions.astype(int)
    if actions.shape[:2] != masks.shape[:2]:  # SB3 flattens what it has sampled from
        actions = actions.reshape(4, 32, -1).swapaxes(0, 1)
    assert np.take_along_axis(masks, actions, axis=-1).all()
    starts = buffer.episode_starts.reshape(-1)
    assert starts.sum() == 32 * 4 / LENGTH  # an episode that did something forbidden would be shorter
    assert not model.policy._leaves_heads_to_sb3


def test_probabilities_of_rollout_and_training_are_the_same() -> None:
    model = make(JaxVecEnv("Guarded", num_envs=4), n_epochs=1)
    model._setup_learn(10**6)
    callback = model._init_callback(None)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 32)
    samples = next(iter(model.rollout_buffer.get(None)))
    assert isinstance(samples.observations, MaskedObservation)
    _, log_prob, entropy = model.policy.evaluate_actions(
        samples.observations, samples.actions.flatten(), samples.lstm_states, samples.episode_starts
    )
    np.testing.assert_allclose(log_prob.detach(), samples.old_log_prob, atol=1e-5)
    assert float(entropy.detach().max()) <= np.log(2) + 1e-6
    entropy.sum().backward()
    assert all(th.isfinite(p.grad).all() for p in model.policy.parameters() if p.grad is not None)


def test_components_are_masked_one_by_one() -> None:
    env = make_vec_env(GuardedPairs, n_envs=2)
    make(env, n_steps=64).learn(128)
    assert env.get_attr("forbidden") == [0, 0]


@pytest.mark.parametrize("deterministic", [False, True])
def test_predict_takes_masks(deterministic: bool) -> None:
    model = make(JaxVecEnv("Guarded", num_envs=4))
    masks = np.eye(ACTIONS, dtype=np.int8)
    obs = np.zeros((4, ACTIONS), np.float32)
    actions, state = model.predict(obs, deterministic=deterministic, action_masks=masks)
    assert actions.tolist() == [0, 1, 2, 3]
    actions, _ = model.predict(obs, state, np.zeros(4), deterministic, action_masks=masks[::-1])
    assert actions.tolist() == [3, 2, 1, 0]
    alone, _ = model.predict(obs[0], deterministic=deterministic, action_masks=masks[2])
    assert int(alone) == 2
    assert model.policy.action_dist.action_masks is None
    model.predict(obs)  # without masks everything is allowed
    with pytest.raises(ValueError, match=r"action_masks: got shape \(4, 3\), expected \(batch, 4\)"):
        model.predict(obs, action_masks=masks[:, :3])


def test_a_saved_model_and_its_portable_policy_act_alike(tmp_path: Path) -> None:
    model = make(JaxVecEnv("Guarded", num_envs=4))
    model.learn(128)
    model.save(tmp_path / "model.zip")
    loaded = S5MaskableRecurrentPPO.load(tmp_path / "model.zip")
    save_policy(tmp_path / "policy.safetensors", model.policy.to_policy())
    portable = load_policy(tmp_path / "policy.safetensors")
    assert portable.config.action_mask
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(64, ACTIONS)).astype(np.float32)
    masks = rng.random((64, ACTIONS)) < 0.5
    masks[:, 1] |= ~masks.any(1)
    expected, _ = model.predict(obs, deterministic=True, action_masks=masks)
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True, action_masks=masks)[0], expected)
    action, _ = portable.act(obs, portable.initial_state(64), np.ones(64, bool), action_mask=masks)
    np.testing.assert_array_equal(action, expected)
    # And back, into a model with masks as into one without.
    again = S5MaskableRecurrentPPO("S5Policy", JaxVecEnv("Guarded", 2), policy_kwargs={"weights": portable})
    np.testing.assert_array_equal(again.predict(obs, deterministic=True, action_masks=masks)[0], expected)
    S5RecurrentPPO("S5Policy", JaxVecEnv("Guarded", 2), policy_kwargs={"weights": portable})


def test_evaluation_by_masks_keeps_the_state() -> None:
    env = JaxVecEnv("Guarded", num_envs=4)
    model = make(env)
    states: list[Any] = []
    predict = model.policy.predict

    def watch(observation: Any, state: Any = None, *args: Any) -> Any:
        states.append(state)
        return predict(observation, state, *args)

    model.policy.predict = watch  # type: ignore[method-assign]
    _, lengths = evaluate_policy(model, env, n_eval_episodes=8, return_episode_rewards=True, warn=False)
    assert lengths == [LENGTH] * 8
    assert [state is None for state in states] == [step % LENGTH == 0 for step in range(len(states))]
    model.predict(env.reset(), episode_start=np.ones(4))
    assert states[-1] is None
    model.predict(np.zeros((2, ACTIONS), np.float32), episode_start=np.zeros(2))
    assert states[-1] is None  # another batch's state is none of its own


def test_what_cannot_be_masked_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"The algorithm only supports Discrete, .* but Box"):
        make(make_vec_env(IdentityEnvBox, n_envs=1))
    with pytest.raises(ValueError, match="the environment has no method action_masks"):
        make(make_vec_env("CartPole-v1", n_envs=1)).learn(32)
    make(make_vec_env("CartPole-v1", n_envs=1)).learn(32, use_masking=False)


def test_a_policy_that_takes_no_masks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^policy must take masks \(MaskableS5Policy\), got S5Policy$"):
        make(JaxVecEnv("Guarded", num_envs=2), policy=S5Policy)


def test_images_come_with_masks_too() -> None:
    """The network would rather do what is forbidden; learned, saved and portable it does what is allowed."""
    forbidden = 2

    def masked() -> Any:
        env = FakeImageEnv(action_dim=4, screen_height=36, screen_width=36, n_channels=1)
        return ActionMasker(env, lambda _: np.arange(4) != forbidden)

    model = make(make_vec_env(masked, n_envs=2), policy="CnnS5Policy")
    assert type(model.policy) is MaskableCnnS5Policy
    with th.no_grad():
        model.policy.action_net.bias[forbidden] = 9.0
    model.learn(64)
    assert set(np.unique(model.rollout_buffer.actions)) <= {0, 1, 3}
    obs = np.random.default_rng(0).integers(0, 256, (8, 36, 36, 1), np.uint8)
    allowed = np.tile(np.arange(4) != forbidden, (8, 1))
    assert (model.predict(obs, deterministic=True)[0] == forbidden).all()
    expected, _ = model.predict(obs, deterministic=True, action_masks=allowed)
    assert (expected != forbidden).all()
    portable = model.policy.to_policy()
    assert portable.config.action_mask
    action, _ = portable.act(obs, portable.initial_state(8), np.ones(8, bool), action_mask=allowed)
    np.testing.assert_array_equal(action, expected)


# --- sb3-contrib's environments, callback and evaluation ---------------------------------------------


def as_dict(env: Any) -> Any:
    """The same environment with its observation in a dictionary."""
    space = spaces.Dict({"obs": env.observation_space})
    return gym.wrappers.TransformObservation(env, lambda obs: {"obs": obs}, space)


def identity() -> Any:
    return InvalidActionEnvDiscrete(dim=8, n_invalid_actions=4)


@pytest.mark.parametrize(
    ("env", "policy"),
    [
        (identity(), "S5Policy"),
        (InvalidActionEnvMultiDiscrete(dims=[2, 3], n_invalid_actions=1), "S5Policy"),
        (InvalidActionEnvMultiBinary(dims=3, n_invalid_actions=1), "S5Policy"),
        (ActionMasker(IdentityEnv(dim=4), lambda env: [True, True, False, True]), "S5Policy"),
        (as_dict(identity()), "MultiInputS5Policy"),
    ],
    ids=["discrete", "multi-discrete", "multi-binary", "action masker", "dictionary"],
)
def test_their_environments_are_learned_and_evaluated(env: Any, policy: str) -> None:
    model = make(env, policy=policy)
    model.learn(64)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=2, warn=False)
    assert np.isfinite(mean)


@pytest.mark.parametrize(
    "env",
    [
        InvalidActionEnvDiscrete(dim=8, n_invalid_actions=7),
        InvalidActionEnvMultiBinary(dims=3, n_invalid_actions=3),
    ],
    ids=["discrete", "multi-binary"],
)
def test_where_one_action_is_allowed_it_is_done(env: Any) -> None:
    assert evaluate_policy(make(env), env, n_eval_episodes=2, warn=False)[0] == 100


def test_their_callback(tmp_path: Path) -> None:
    callback = MaskableEvalCallback(
        make_vec_env(identity), eval_freq=16, n_eval_episodes=2, log_path=str(tmp_path), warn=False
    )
    make(make_vec_env(identity)).learn(64, callback=callback)
    assert callback.last_mean_reward > -np.inf
