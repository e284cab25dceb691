"""Masks in the trainer: nothing forbidden is done in rollout or evaluation, and learning is by the masks."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from s5_adapters.core import MaskedObservation
from s5_adapters.core.network.masks import MASKED
from s5_adapters.purejax.algorithms.ppo import ppo_loss
from s5_adapters.purejax.evaluate import Evaluator
from s5_adapters.purejax.problem import build_problem
from s5_adapters.purejax.rollout import advantages, collect, init_carry
from tests import guarded
from tests.purejax.helpers import small_config


def test_rollout_training_and_evaluation_are_by_the_masks() -> None:
    config = small_config(env_id="Guarded", normalize_observations=True, num_steps=64, total_steps=4 * 64 * 4)
    problem = build_problem(config)
    assert problem.net.config.action_mask
    assert problem.obs_shape == (guarded.ACTIONS,)
    state = config.init_state(problem, jax.random.key(0), jnp.float32(1e-2))
    # An actor that would rather do what is forbidden than anything else.
    biased = state.params["heads"]["actor"] | {"bias": jnp.array([9.0, -9.0, 4.0, -4.0])}
    params = {**state.params, "heads": {**state.params["heads"], "actor": biased}}
    play = jax.jit(lambda params, carry: collect(problem, config, params, carry, jax.random.key(1)))
    carry, rollout, episodes = play(params, state.carry)
    assert isinstance(rollout.obs, MaskedObservation)
    assert rollout.obs.action_mask.shape == (64, 4, guarded.ACTIONS)
    allowed = jnp.take_along_axis(rollout.obs.action_mask, rollout.action[..., None], axis=-1)
    assert bool(allowed.all())
    assert (np.asarray(episodes.episode_length)[np.asarray(episodes.done)] == guarded.LENGTH).all()
    assert (np.asarray(rollout.log_prob) > MASKED / 2).all()

    @jax.jit
    def learn(params: Any) -> Any:
        advantage, target = advantages(rollout, config.gamma, config.gae_lambda)
        given = problem, config, rollout, state.carry.memory_state, advantage, target
        _, inputs, _ = problem.net.apply(params, given[3], rollout.obs, rollout.episode_starts)
        return inputs, jax.value_and_grad(ppo_loss, has_aux=True)(params, *given)

    inputs, ((_, metrics), grads) = learn(params)
    np.testing.assert_array_equal(inputs[~rollout.obs.action_mask], MASKED)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert 0 <= float(metrics["entropy"]) <= np.log(2)  # of two allowed actions
    assert abs(float(metrics["approx_kl"])) < 1e-4  # training computes the rollout's probabilities

    played = Evaluator(problem, 16)(params, carry.obs_stats, jax.random.key(2))
    assert (played.lengths == guarded.LENGTH).all()


def test_each_component_of_an_action_is_by_its_own_mask() -> None:
    config = small_config(env_id="GuardedSwitches", num_steps=64, total_steps=64 * 4)
    problem = build_problem(config)
    params = problem.net.init(jax.random.key(0))
    # An actor that would rather do what is forbidden than anything else.
    biased = params["heads"]["actor"] | {"bias": jnp.array([9.0, -9.0, 4.0, -9.0, 9.0])}
    params = {**params, "heads": {**params["heads"], "actor": biased}}

    @jax.jit
    def play(params: Any) -> Any:
        carry = init_carry(problem, config, jax.random.key(1))
        return collect(problem, config, params, carry, jax.random.key(2))[1:]

    rollout, episodes = play(params)
    assert rollout.action.shape == (64, 4, 2)
    for component, mask in enumerate(np.split(np.asarray(rollout.obs.action_mask), [3], axis=-1)):
        action = np.asarray(rollout.action)[..., component : component + 1]
        assert np.take_along_axis(mask, action, axis=-1).all()
        assert len(np.unique(action)) == 2  # never the same, whatever the network would rather do
    assert (np.asarray(rollout.reward) == 0).all()
    assert (np.asarray(episodes.episode_length)[np.asarray(episodes.done)] == guarded.LENGTH).all()
    assert (np.asarray(rollout.log_prob) > MASKED / 2).all()


def test_statistics_are_of_observations_alone() -> None:
    config = small_config(env_id="Guarded", normalize_observations=True)
    carry = init_carry(build_problem(config), config, jax.random.key(0))
    assert carry.obs_stats is not None
    assert carry.obs_stats.mean.shape == (guarded.ACTIONS,)


def test_boards_are_played_by_their_masks() -> None:
    config = small_config(env_id="MineSweeperEasy", env_kwargs={"action_mask": True})
    problem = build_problem(config)
    assert problem.action.num_inputs == 16
    params = problem.net.init(jax.random.key(0))

    @jax.jit
    def play(params: Any) -> Any:
        carry = init_carry(problem, config, jax.random.key(1))
        return collect(problem, config, params, carry, jax.random.key(2))[1]

    rollout = play(params)
    again = -0.5 / (14 - 2)  # the reward of a square that was viewed before
    assert not np.isclose(rollout.reward, again).any()
