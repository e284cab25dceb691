"""What a rollout hands to the update: values under the right state, advantages, bootstrapping."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5_adapters.core import distribution
from s5_adapters.purejax import build_problem, make_train
from s5_adapters.purejax.normalization import init_stats, normalize, update_stats
from s5_adapters.purejax.rollout import Transitions, advantages, collect, init_carry
from tests.purejax import environments  # noqa: F401  registers
from tests.purejax.helpers import small_config

LENGTH = 5


@pytest.fixture(scope="module", params=[False, True], ids=["raw", "normalised"])
def two_rollouts(request):
    """Two rollouts in a row of an environment that is always truncated, with a network that remembers."""
    config = small_config(
        env_id="HiddenBit",
        env_kwargs={"length": LENGTH},
        memory_config={"d_model": 8, "d_state": 8, "n_layers": 2},
        normalize_observations=request.param,
        num_steps=8,
    )
    problem = build_problem(config)
    params = problem.net.init(jax.random.key(1))
    carry = init_carry(problem, config, jax.random.key(2))
    run = jax.jit(lambda carry, key: collect(problem, config, params, carry, key))
    rollouts = []
    for seed in (3, 4):
        start = carry
        carry, *rest = run(carry, jax.random.key(seed))
        rollouts.append((start, carry, *rest))
    return config, problem, params, rollouts


def test_the_value_of_a_truncated_step_is_that_of_its_own_final_observation(two_rollouts):
    """Each episode is run again alone, from an empty memory, its final observation appended."""
    _, problem, params, rollouts = two_rollouts
    obs, starts, truncated, final_value, value = (
        np.concatenate([np.asarray(getattr(rollout[2], name)) for rollout in rollouts])
        for name in ("obs", "episode_starts", "truncated", "final_value", "value")
    )
    apply = jax.jit(problem.net.apply)
    empty = problem.net.initial_state(1)
    for env in range(obs.shape[1]):
        for end in np.flatnonzero(truncated[:, env]):
            begin = end - LENGTH + 1
            assert starts[begin, env]
            assert not starts[begin + 1 : end + 1, env].any()
            final_obs = _final_obs(two_rollouts, end)
            episode = np.concatenate([obs[begin : end + 1, env], final_obs[None]])[:, None]
            no_reset = np.zeros((LENGTH + 1, 1), bool)
            _, _, values = apply(params, empty, jnp.array(episode), no_reset)
            np.testing.assert_allclose(values[:-1, 0], value[begin : end + 1, env], atol=1e-5)
            np.testing.assert_allclose(values[-1, 0], final_value[end, env], atol=1e-5)
            last = jnp.array(final_obs)[None, None]
            _, _, forgotten = apply(params, empty, last, no_reset[:1])
            assert abs(float(forgotten[0, 0]) - final_value[end, env]) > 1e-3


def _final_obs(two_rollouts, step):
    """The observation that the automatic reset hid: no bit, all of the time gone."""
    final_obs = np.array([0.0, 1.0, 1.0], np.float32)
    if not two_rollouts[0].normalize_observations:
        return final_obs
    return np.asarray(normalize(_stats_at(two_rollouts, step), final_obs))


def _stats_at(two_rollouts, step):
    """The statistics that the policy saw a step under: those of all raw observations up to it."""
    config, problem, _, rollouts = two_rollouts
    stats = init_stats(problem.obs_shape)
    clock = np.zeros(config.num_envs)
    for t in range(step + 1):
        _, _, transitions, episodes = rollouts[t // config.num_steps]
        row = t % config.num_steps
        bit = np.where(clock == 0, 2 * np.asarray(episodes.reward)[row] - 1, 0)
        raw = np.stack([bit, clock / LENGTH, np.ones_like(bit)], axis=1).astype(np.float32)
        stats = update_stats(stats, raw)
        np.testing.assert_allclose(normalize(stats, raw), transitions.obs[row], atol=1e-4)
        clock = np.where(np.asarray(episodes.done)[row], 0, clock + 1)
    return stats


def test_the_last_final_value_is_that_of_the_next_rollouts_first_step(two_rollouts):
    config, _, _, rollouts = two_rollouts
    (_, _, before, _), (_, _, after, _) = rollouts
    assert not np.asarray(after.episode_starts[0]).any()
    tolerance = 1e-5 if not config.normalize_observations else 0.2  # the next step's statistics know more
    np.testing.assert_allclose(before.final_value[-1], after.value[0], atol=tolerance)


def test_where_time_limits_are_ends_only_the_last_step_is_bootstrapped(two_rollouts):
    """By the same value as otherwise, and without asking at every step whether one is needed."""
    config, problem, params, rollouts = two_rollouts
    terminal = replace(config, time_limit="terminal")
    start, _, bootstrapped, _ = rollouts[0]

    def run(config, carry):
        return collect(problem, config, params, carry, jax.random.key(3))

    _, transitions, _ = jax.jit(partial(run, terminal))(start)
    assert not np.asarray(transitions.terminated[-1]).any()
    np.testing.assert_allclose(transitions.final_value[-1], bootstrapped.final_value[-1], atol=1e-5)
    assert " cond[" not in str(jax.make_jaxpr(partial(run, terminal))(start))
    assert " cond[" in str(jax.make_jaxpr(partial(run, config))(start))


def test_the_stored_state_and_the_resets_replay_the_rollout(two_rollouts):
    """The update's view of a rollout that begins amid episodes: same log-probabilities, same values."""
    _, problem, params, rollouts = two_rollouts
    start, _, transitions, _ = rollouts[1]
    assert not np.asarray(start.episode_starts).any()
    _, inputs, values = problem.net.apply(
        params, start.memory_state, transitions.obs, transitions.episode_starts
    )
    np.testing.assert_allclose(values, transitions.value, atol=1e-5)
    log_prob = distribution(problem.action, inputs).log_prob(transitions.action)
    np.testing.assert_allclose(log_prob, transitions.log_prob, atol=1e-5)


def test_episode_statistics_are_raw_and_span_rollouts(two_rollouts):
    _, _, _, rollouts = two_rollouts
    for _, _, _, episodes in rollouts:
        done = np.asarray(episodes.done)
        assert done.any()
        assert (np.asarray(episodes.episode_length)[done] == LENGTH).all()
        assert set(np.asarray(episodes.episode_return)[done]) <= {0.0, float(LENGTH)}


def test_an_episode_that_ends_both_ways_is_terminated():
    config = small_config(env_id="HiddenBit", env_kwargs={"length": 3, "both": True})
    problem = build_problem(config)
    params = problem.net.init(jax.random.key(1))
    carry = init_carry(problem, config, jax.random.key(2))
    _, transitions, _ = jax.jit(lambda: collect(problem, config, params, carry, jax.random.key(0)))()
    assert np.asarray(transitions.terminated).any()
    assert not np.asarray(transitions.truncated).any()


@pytest.mark.parametrize("seed", range(5))
def test_advantages_are_those_of_the_sum(seed):
    """Against generalised advantage estimation as a loop in float64."""
    rng = np.random.default_rng(seed)
    steps, envs, gamma, gae_lambda = 13, 4, 0.9, 0.8
    terminated = rng.random((steps, envs)) < 0.2
    truncated = (rng.random((steps, envs)) < 0.2) & ~terminated
    value, reward, final_value = (rng.normal(size=(steps, envs)) for _ in range(3))

    expected = np.zeros((steps, envs))
    for env in range(envs):
        following = 0.0
        for t in reversed(range(steps)):
            next_value = value[t + 1, env] if t + 1 < steps else final_value[t, env]
            if truncated[t, env]:
                next_value = final_value[t, env]
            if terminated[t, env]:
                next_value = 0.0
            if terminated[t, env] or truncated[t, env]:
                following = 0.0
            delta = reward[t, env] + gamma * next_value - value[t, env]
            expected[t, env] = following = delta + gamma * gae_lambda * following

    unused = jnp.zeros((steps, envs))
    transitions = Transitions(
        obs=unused,
        episode_starts=unused,
        action=unused,
        log_prob=unused,
        value=jnp.array(value, jnp.float32),
        reward=jnp.array(reward, jnp.float32),
        terminated=jnp.array(terminated),
        truncated=jnp.array(truncated),
        final_value=jnp.array(final_value, jnp.float32),
    )
    advantage, target = advantages(transitions, gamma, gae_lambda)
    np.testing.assert_allclose(advantage, expected, atol=1e-5)
    np.testing.assert_allclose(target, expected + value, atol=1e-5)


def test_truncation_teaches_the_value_of_an_endless_episode():
    """The bit is worth 1 / (1 - gamma) = 5 or 0 for ever, and is only seen once.

    At an episode's last step, bootstrapping from the observation after the reset, or from the final one under
    an empty memory, would teach 3 and 2 in place of 5 and 0; taking truncation for termination, 1 and 0.
    """
    config = small_config(
        env_id="HiddenBit",
        env_kwargs={"length": 4},
        memory="gru",
        memory_config={"d_model": 16, "n_layers": 1},
        critic_torso=(16,),
        gamma=0.8,
        gae_lambda=0.9,
        learning_rate=1e-2,
        clip_value_loss=False,
        max_grad_norm=None,
        num_envs=16,
        num_steps=16,
        num_epochs=4,
        num_minibatches=1,
        total_steps=300 * 256,
    )
    problem = build_problem(config)
    state = jax.jit(make_train(config))(jax.random.key(0)).state
    _, transitions, episodes = jax.jit(
        lambda: collect(problem, config, state.params, state.carry, jax.random.key(1))
    )()
    bit = np.asarray(episodes.reward)
    at_the_end = np.asarray(transitions.truncated)
    for wanted, expected in ((1.0, 5.0), (0.0, 0.0)):
        chosen = at_the_end & (bit == wanted)
        assert chosen.any()
        # The mistakes above are all 2 or more away: below 1 none can pass for the truth.
        np.testing.assert_allclose(np.asarray(transitions.value)[chosen], expected, atol=0.9)
        np.testing.assert_allclose(np.asarray(transitions.final_value)[chosen], expected, atol=0.9)
