"""Projections and trials: what stays over a task, what is drawn anew, what is seen at each kind of end."""

from __future__ import annotations

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import s5_envs
from s5_envs import PreviousReward, RandomProjection, Symlog, TrialEnd, Trials
from s5_envs.base import EnvParams
from s5_envs.in_context.projection import orthonormal_rows
from s5_envs.in_context.renewal import GROUP, renew
from s5_envs.spaces import to_gymnasium
from tests.envs.echo import Echo
from tests.marks import slow


def play(env: Any, actions: Any, params: Any = None, key: Any = None) -> Any:
    """Reset and step through ``actions``: what was returned, ``(T + 1, ...)`` and ``(T, ...)``, as numpy."""
    reset_key, step_key = jax.random.split(jax.random.key(0) if key is None else key)
    obs, state = env.reset(reset_key, params)

    def step(state: Any, now: Any) -> Any:
        key, action = now
        obs, after, *rest = env.step(key, state, action, params)
        return after, (obs, after, *rest)

    keys = jax.random.split(step_key, len(actions))
    _, (seen, states, reward, terminated, truncated, info) = jax.lax.scan(step, state, (keys, actions))
    obs = jnp.concatenate([obs[None], seen])
    states = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), state, states)
    return jax.tree.map(np.asarray, (obs, states, reward, terminated, truncated, info))


def assert_close(first: Any, second: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), first, second)


def boxes(num_steps: int, size: int, seed: int = 3) -> jax.Array:
    return jax.random.uniform(jax.random.key(seed), (num_steps, size), minval=-1.0, maxval=1.0)


# --- projection -------------------------------------------------------------------------------------


def test_a_projection_is_constant_within_an_episode_and_another_one_in_the_next() -> None:
    env = RandomProjection(Echo(length=4), obs_dim=7, action_dim=2)
    obs, states, _, terminated, _, info = play(env, boxes(13, 2))
    np.testing.assert_array_equal(terminated, [(t + 1) % 4 == 0 for t in range(13)])
    for matrix in (states.obs_matrix, states.action_matrix):
        begins = [t for t in range(1, 14) if not np.array_equal(matrix[t], matrix[t - 1])]
        assert begins == [4, 8, 12]
    for t in range(13):
        inner = states.env_state
        shown = [inner.start[t + 1], inner.time[t + 1], *inner.action[t + 1]]
        np.testing.assert_allclose(obs[t + 1], states.obs_matrix[t + 1] @ shown, rtol=2e-6, atol=1e-6)
        # The end of an episode is shown through the projection that the episode had.
        if not terminated[t]:
            np.testing.assert_array_equal(info["final_observation"][t], obs[t + 1])
        else:
            final = np.linalg.pinv(states.obs_matrix[t]) @ info["final_observation"][t]
            np.testing.assert_allclose(final[:2], [inner.start[t], 4.0], atol=1e-5)


@pytest.mark.parametrize("distribution", ["orthogonal", "normal"])
def test_projections_of_a_batch_s_episodes_are_independent(distribution: Any) -> None:
    """Entries of different environments, episodes, matrices and of one matrix: uncorrelated."""
    env = RandomProjection(Echo(length=2), obs_dim=5, action_dim=3, distribution=distribution)
    num_envs = 512
    keys = jax.random.split(jax.random.key(1), num_envs)
    actions = jnp.zeros((6, 3))
    _, states, *_ = jax.vmap(lambda key: play_jax(env, actions, key))(keys)
    first, second, third = (
        np.concatenate(
            [m[:, t].reshape(num_envs, -1) for m in (states.obs_matrix, states.action_matrix)], axis=1
        )
        for t in (0, 2, 4)
    )
    entries = np.concatenate([first, second, third], axis=1)
    correlations = np.corrcoef(entries.T) - np.eye(entries.shape[1])
    assert np.abs(correlations).max() < 5 / np.sqrt(num_envs)
    assert len(np.unique(np.concatenate([first, second, third]), axis=0)) == 3 * num_envs


def play_jax(env: Any, actions: Any, key: Any) -> Any:
    """As ``play``, for use under ``jax.vmap``."""
    obs, state = env.reset(jax.random.fold_in(key, 0))

    def step(state: Any, now: Any) -> Any:
        t, action = now
        obs, after, *rest = env.step(jax.random.fold_in(key, t), state, action)
        return after, (obs, after, *rest)

    steps = (jnp.arange(1, len(actions) + 1), actions)
    _, (seen, states, *rest) = jax.lax.scan(step, state, steps)
    states = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), state, states)
    return jnp.concatenate([obs[None], seen]), states, *rest


@pytest.mark.parametrize("distribution", ["orthogonal", "normal"])
@pytest.mark.parametrize("obs_dim", [3, 9])
def test_matrices_have_the_moments_that_they_say(distribution: Any, obs_dim: int) -> None:
    scale, num = 1.5, 4000
    env = RandomProjection(Echo(), obs_dim=obs_dim, distribution=distribution, obs_scale=scale)
    _, states = jax.vmap(env.reset)(jax.random.split(jax.random.key(5), num))
    matrices = np.asarray(states.obs_matrix, np.float64)
    variance = scale**2 / max(obs_dim, 5)
    np.testing.assert_allclose(matrices.mean(0), 0.0, atol=5 * np.sqrt(variance / num))
    np.testing.assert_allclose(matrices.var(0), variance, rtol=0.15)
    if distribution == "orthogonal":
        tall = matrices if obs_dim >= 5 else matrices.swapaxes(1, 2)
        gram = tall.swapaxes(1, 2) @ tall
        np.testing.assert_allclose(
            gram, np.broadcast_to(scale**2 * np.eye(min(obs_dim, 5)), gram.shape), atol=1e-5
        )
    else:
        fourth = ((matrices / np.sqrt(variance)) ** 4).mean()
        assert fourth == pytest.approx(3.0, rel=0.1)


def test_orthonormal_rows_are_uniform() -> None:
    """As the Haar measure has it: fourth moments, and as many rotations as reflections."""
    numbers = jax.random.normal(jax.random.key(0), (20000, 3, 3))
    q = np.asarray(jax.vmap(orthonormal_rows)(numbers), np.float64)
    np.testing.assert_allclose((q**4).mean(0), 3 / 15, rtol=0.05)  # E q_ij^4 = 3 / (n (n + 2))
    assert abs((np.linalg.det(q) > 0).mean() - 0.5) < 0.02
    large = np.asarray(orthonormal_rows(jax.random.normal(jax.random.key(1), (60, 64))), np.float64)
    np.testing.assert_allclose(large @ large.T, np.eye(60), atol=2e-6)


def test_actions_reach_the_environment_as_the_projection_says() -> None:
    env = RandomProjection(Echo(length=5), action_dim=2, action_scale=1.5)
    actions = boxes(12, 2) * 1.2  # some outside the box, which are clipped
    _, states, *_, info = play(env, actions)
    clips = 0
    for t, action in enumerate(np.clip(np.asarray(actions), -1, 1)):
        unit = states.action_matrix[t] @ action
        clips += (np.abs(unit) > 1).sum()
        # Echo's bounds are -2 and 4: middle 1, half 3.
        expected = 1 + 3 * np.clip(unit, -1, 1)
        np.testing.assert_allclose(info["final_observation"][t][2:], expected, rtol=1e-5, atol=1e-5)
    assert 0 < clips < 36


def test_discrete_actions_are_put_in_a_random_order() -> None:
    env = RandomProjection(Echo(length=4, num_choices=3), action_dim=3)
    assert env.action_space().n == env.num_actions == 3
    actions = jnp.arange(48) % 3
    _, states, *_, info = play(env, actions)
    assert (np.sort(states.action_matrix, axis=1) == np.arange(3)).all()
    for t in range(48):
        assert info["final_observation"][t][2] == states.action_matrix[t][t % 3]
    assert len(np.unique(states.action_matrix, axis=0)) >= 4
    _, states = jax.vmap(env.reset)(jax.random.split(jax.random.key(2), 6000))
    orders, counts = np.unique(states.action_matrix, axis=0, return_counts=True)
    assert len(orders) == 6
    assert (np.abs(counts - 1000) < 5 * np.sqrt(1000)).all()


def test_what_is_left_out_is_left_alone() -> None:
    inner = Echo()
    env = RandomProjection(inner, obs_dim=4)
    assert to_gymnasium(env.action_space()) == to_gymnasium(inner.action_space())
    env = RandomProjection(inner, action_dim=2)
    assert to_gymnasium(env.observation_space()) == to_gymnasium(inner.observation_space())
    key, action = jax.random.key(0), jnp.array([0.5, -1.0])
    np.testing.assert_array_equal(env.reset(key)[0], inner.reset(key)[0])
    _, state = env.reset(key)
    seen = inner.step(key, state.env_state, env.unwrapped_action(action, state))
    np.testing.assert_allclose(env.step(key, state, action)[0], seen[0], rtol=1e-6)


def test_two_projections_around_one_another_differ() -> None:
    env = RandomProjection(RandomProjection(Echo(), obs_dim=5), obs_dim=5)
    _, state = env.reset(jax.random.key(0))
    assert np.abs(state.obs_matrix - state.env_state.obs_matrix).max() > 0.1


@pytest.mark.parametrize("num_envs", [1, 5, 3 * GROUP + 1])
def test_a_batch_plays_what_single_environments_play(num_envs: int) -> None:
    """However many episodes end at once; here all of them do, more than one group."""
    env = TrialEnd(PreviousReward(RandomProjection(Trials(Echo(length=2), 2), obs_dim=3, action_dim=2)))
    actions = boxes(9, 2)
    keys = jax.random.split(jax.random.key(4), num_envs)
    batch = jax.vmap(lambda key: play_jax(env, actions, key))(keys)
    for i in {0, num_envs // 2, num_envs - 1}:
        single = play_jax(env, actions, keys[i])
        assert_close(single, jax.tree.map(lambda x, i=i: x[i], batch))
    nested = jax.vmap(jax.vmap(lambda key: play_jax(env, actions, key)))(keys[None])
    assert_close(jax.tree.map(lambda x: x[0], nested), batch)


def test_only_environments_whose_episode_ends_draw() -> None:
    """Nothing is drawn in a batch where nothing ended, and where something did, the others keep theirs."""
    env = RandomProjection(Echo(length=3), obs_dim=4)
    keys = jax.random.split(jax.random.key(0), 40)
    step = jax.jit(jax.vmap(env.step))
    _, state = jax.vmap(env.reset)(keys)
    state = state.replace(env_state=state.env_state.replace(time=jnp.arange(40) % 3))
    later = jax.random.split(jax.random.key(1), 40)
    _, after, _, terminated, *_ = step(later, state, jnp.zeros((40, 3)))
    kept = (np.asarray(after.obs_matrix) == np.asarray(state.obs_matrix)).all((1, 2))
    np.testing.assert_array_equal(kept, ~np.asarray(terminated))
    assert terminated.sum() == 13


@pytest.mark.parametrize(("ends", "groups"), [(0, 0), (1, 1), (32, 1), (33, 2)])
def test_draws_are_made_for_groups_of_those_that_need_them(ends: int, groups: int) -> None:
    made: list[int] = []

    def draw(key: jax.Array) -> jax.Array:
        jax.debug.callback(lambda _: made.append(1), jax.random.key_data(key))
        return jax.random.uniform(key)

    keys, needed = jax.random.split(jax.random.key(0), 64), jnp.arange(64) < ends
    drawn = jax.jit(jax.vmap(functools.partial(renew, draw)))(needed, keys, jnp.full(64, -1.0))
    jax.effects_barrier()
    assert len(made) == groups * GROUP
    np.testing.assert_array_equal(drawn == -1.0, ~needed)


# --- trials -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "limit", "flag"), [(3, 9, "terminated"), (9, 2, "truncated")])
@pytest.mark.parametrize("same_start", [True, False])
def test_trial_ends_and_task_ends(length: int, limit: int, flag: str, same_start: bool) -> None:
    env = Trials(Echo(length=length), num_trials=3, same_start=same_start)
    params = EnvParams(max_steps_in_episode=limit)
    period = min(length, limit)
    actions = boxes(7 * period, 3)
    obs, _, reward, terminated, truncated, info = play(env, actions, params)
    starts: list[float] = [obs[0][0]]
    for t in range(7 * period):
        trial_ended, trial = (t + 1) % period == 0, t // period
        done = (t + 1) % (3 * period) == 0
        assert (terminated if flag == "terminated" else truncated)[t] == done
        assert not (truncated if flag == "terminated" else terminated)[t]
        assert info["terminated"][t] == terminated[t]
        assert info["truncated"][t] == truncated[t]
        assert info["trial_ended"][t] == trial_ended
        assert info["trial"][t] == trial % 3
        time = t % period + 1
        assert info["trial_return"][t] == time * (time + 1) / 2
        assert reward[t] == time
        if trial_ended:
            starts.append(obs[t + 1][0])
            np.testing.assert_array_equal(obs[t + 1][1:], 0.0)
        if done:  # what the step led to: the old start, the last time, the action
            np.testing.assert_allclose(info["final_observation"][t], [starts[-2], time, *actions[t]])
        else:  # the episode goes on there
            np.testing.assert_array_equal(info["final_observation"][t], obs[t + 1])
    tasks = [starts[:3], starts[3:6], starts[6:]]
    assert [len(set(task)) for task in tasks] == ([1, 1, 1] if same_start else [3, 3, 2])
    assert len({task[0] for task in tasks}) == 3


def test_one_trial_is_the_environment_itself() -> None:
    inner = Echo(length=4)
    for same_start in (True, False):
        ours = play(Trials(inner, 1, same_start=same_start), boxes(11, 3))
        bare = play(inner, boxes(11, 3))
        for name in ("final_observation", "terminated", "truncated"):
            np.testing.assert_array_equal(ours[5][name], bare[5][name])
        for i in (0, 2, 3, 4):
            np.testing.assert_array_equal(ours[i], bare[i])


def test_a_projection_around_trials_is_the_task_s() -> None:
    env = RandomProjection(Trials(Echo(length=2), 3), obs_dim=6)
    _, states, _, terminated, _, info = play(env, boxes(14, 3))
    changes = [t for t in range(1, 15) if not np.array_equal(states.obs_matrix[t], states.obs_matrix[t - 1])]
    assert changes == [6, 12] == [t + 1 for t in range(14) if terminated[t]]
    assert info["trial_ended"].sum() == 7


def test_statistics_count_the_task() -> None:
    env = s5_envs.EpisodeStatistics(Trials(Echo(length=2), 3))
    *_, info = play(env, boxes(6, 3))
    assert info["returned_episode"].tolist() == [False] * 5 + [True]
    assert info["returned_episode_returns"][-1] == 9.0
    assert info["returned_episode_lengths"][-1] == 6


# --- what is shown beside ---------------------------------------------------------------------------


def test_rewards_and_trial_ends_are_shown() -> None:
    env = TrialEnd(PreviousReward(Trials(Echo(length=2), 2)))
    obs, *_, info = play(env, boxes(6, 3))
    #                       first        trial ends    task ends     trial ends
    assert obs[:, -2].tolist() == [0.0, 1.0, 2.0, 1.0, 0.0, 1.0, 2.0]
    assert obs[:, -1].tolist() == [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    final = info["final_observation"]
    assert final[:, -2].tolist() == [1.0, 2.0, 1.0, 2.0, 1.0, 2.0]
    assert final[:, -1].tolist() == [0.0, 1.0, 0.0, 0.0, 0.0, 1.0]  # where a trial begins, and nowhere else


@pytest.mark.parametrize(
    ("build", "actions", "flag"),
    [
        (lambda: TrialEnd(PreviousReward(Trials(Echo(length=9), 1))), boxes(20, 3), -1),
        (lambda: s5_envs.make("MetaControl-v0")[0].families[0].env, boxes(20, 2), -1),
        (lambda: s5_envs.make("MetaCartPole-v0", num_trials=1)[0], jnp.arange(20) % 2, -2),
    ],
)
def test_a_final_observation_shows_no_flag_that_no_other_does(build: Any, actions: Any, flag: int) -> None:
    """A critic is asked for its value, and learns from the others alone: what it makes of a flag that they do
    not have would be the value of every time limit, and could grow from itself for ever.
    """
    env = build()
    params = env.default_params.replace(max_steps_in_episode=5)
    obs, _, _, _, truncated, info = play(env, actions, params)
    assert truncated.sum() == 4
    np.testing.assert_array_equal(obs[:, flag], 0.0)
    np.testing.assert_array_equal(info["final_observation"][:, flag], 0.0)


def test_symlog_is_shown_and_paid_while_trials_tell_raw_returns() -> None:
    env = Symlog(Trials(Echo(length=2), 2))
    obs, _, reward, *_, info = play(env, boxes(4, 3) * 9)
    raw, _, raw_reward, *_, raw_info = play(Trials(Echo(length=2), 2), boxes(4, 3) * 9)
    for shown, value in [(obs, raw), (reward, raw_reward)]:
        np.testing.assert_allclose(shown, np.sign(value) * np.log1p(np.abs(value)), rtol=1e-6)
    np.testing.assert_allclose(info["final_observation"][:3], obs[1:4])
    np.testing.assert_array_equal(info["trial_return"], raw_info["trial_return"])
    assert (np.abs(obs) <= env.observation_space().high).all()
    assert float(env.observation_space().high) == pytest.approx(np.log(11), rel=1e-4)
    left = play(Symlog(Trials(Echo(length=2), 2), observations=False), boxes(4, 3) * 9)
    np.testing.assert_array_equal(left[0], raw)


# --- any environment --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env_id", "action_dim"),
    [
        ("RepeatPreviousEasy", 4),
        ("BattleshipEasy", None),
        ("PositionOnlyPendulumEasy", 2),
        *slow(("CartPole-v1", 2), ("Reacher-misc", 3)),
    ],
)
def test_wrappers_compose_for_environments_of_make(env_id: str, action_dim: int | None) -> None:
    inner, params = s5_envs.make(env_id)
    env = RandomProjection(Trials(inner, 2), obs_dim=6, action_dim=action_dim)
    env = s5_envs.EpisodeStatistics(TrialEnd(PreviousReward(s5_envs.PreviousAction(env))))
    keys = jax.random.split(jax.random.key(0), 3)
    obs, state = jax.vmap(env.reset, (0, None))(keys, params)
    space = env.action_space(params)
    actions = jax.vmap(space.sample)(keys)
    types = jax.tree.map(lambda x: (x.shape, x.dtype), state)
    for _ in range(2):
        obs, state, reward, terminated, truncated, info = jax.vmap(env.step, (0, 0, 0, None))(
            keys, state, actions, params
        )
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == types
    assert obs.shape == info["final_observation"].shape == (3, *env.observation_space(params).shape)
    assert obs.dtype == jnp.float32
    assert np.isfinite(obs).all()
    assert reward.shape == terminated.shape == truncated.shape == info["trial_return"].shape == (3,)


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("env_id", ["RepeatPreviousEasy", "PositionOnlyPendulumEasy", "Reacher-misc"])
def test_types_stay_what_they_are(env_id: str, x64: bool) -> None:
    with jax.enable_x64(x64):
        inner, params = s5_envs.make(env_id)
        num_actions = 4 if env_id == "RepeatPreviousEasy" else 2
        env = TrialEnd(PreviousReward(RandomProjection(Trials(inner, 2), obs_dim=3, action_dim=num_actions)))
        key = jax.random.key(0)
        obs, state = jax.eval_shape(env.reset, key, params)
        action = s5_envs.spaces.null_value(env.action_space(params))
        seen, after, *_ = jax.eval_shape(env.step, key, state, action, params)
        shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in ((obs, state), (seen, after))]
        assert shapes[0] == shapes[1]
        assert obs.dtype == jnp.float32


def test_wrappers_are_equal_by_configuration() -> None:
    def build(obs_dim: int, num_trials: int) -> Any:
        return RandomProjection(Trials(Echo(), num_trials), obs_dim=obs_dim)

    assert build(4, 2) == build(4, 2)
    assert hash(build(4, 2)) == hash(build(4, 2))
    assert build(4, 2) != build(5, 2)
    assert build(4, 2) != build(4, 3)


def test_projected_observations_stay_in_their_space() -> None:
    env = RandomProjection(s5_envs.make("PositionOnlyCartPoleEasy")[0], obs_dim=4, obs_scale=2.0)
    box = env.observation_space()
    obs, *_ = play(env, jnp.zeros(100, jnp.int32))
    assert (np.abs(obs) <= box.high).all()
    assert np.isfinite(box.high)
    assert np.isinf(RandomProjection(env.env, obs_dim=4, distribution="normal").observation_space().high)
    assert np.isinf(RandomProjection(s5_envs.make("Reacher-misc")[0], obs_dim=4).observation_space().high)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandomProjection(Echo(), obs_dim=0), "obs_dim must be a positive integer or None, got 0"),
        (
            lambda: RandomProjection(Echo(), action_dim=1.5),
            "action_dim must be a positive integer or None, got 1.5",
        ),
        (
            lambda: RandomProjection(Echo(num_choices=3), action_dim=2),
            "Echo has 3 discrete actions, of which an order is drawn: action_dim must be 3 or None, got 2",
        ),
        (
            lambda: RandomProjection(s5_envs.make("BattleshipEasy")[0], action_dim=2),
            "Battleship has actions MultiDiscrete([8, 8]), expected Box or Discrete",
        ),
        (
            lambda: RandomProjection(Echo(), 3, distribution="uniform"),
            "one of orthogonal, normal, got 'uniform'",
        ),
        (lambda: RandomProjection(Echo(), 3, obs_scale=0.0), "obs_scale must be positive, got 0.0"),
        (lambda: Trials(Echo(), 0), "num_trials must be a positive integer, got 0"),
        (
            lambda: Trials(s5_envs.PreviousAction(RandomProjection(Echo(), 3)), 2, same_start=False),
            "every trial would have a projection of its own; expected RandomProjection(Trials(env))",
        ),
        (lambda: TrialEnd(Echo()), "TrialEnd: Echo has no trials; expected Trials(env)"),
        (lambda: Symlog(Echo(), False, False), "expected one of them True"),
    ],
)
def test_one_clear_line(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        build()
    assert "\n" not in str(caught.value)
