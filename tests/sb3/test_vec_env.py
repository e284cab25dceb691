"""JaxVecEnv: SB3's conventions at an episode's end, seeds, spaces, and what it refuses."""

from __future__ import annotations

import multiprocessing
import os
import sys

import jax
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

import s5_envs
from s5_adapters.sb3.vec_env import JaxVecEnv
from s5_envs.processes import refuse_forked_process
from tests.envs.echo import Echo


def play(env: JaxVecEnv, steps: int, seed: int = 0) -> list[tuple]:
    rng = np.random.default_rng(seed)
    return [env.step(rng.integers(0, env.action_space.n, env.num_envs)) for _ in range(steps)]


def test_shapes_dtypes_and_episode_ends_of_a_terminating_game() -> None:
    env = JaxVecEnv("RepeatPreviousEasy", 3, seed=5)
    obs = env.reset()
    assert obs.shape == (3, *env.observation_space.shape)
    assert obs.dtype == env.observation_space.dtype
    length = s5_envs.make("RepeatPreviousEasy")[0].episode_length
    steps = play(env, 2 * length)
    ends = [t for t, (_, _, dones, _) in enumerate(steps) if dones.any()]
    assert ends == [length - 1, 2 * length - 1]
    obs, rewards, dones, infos = steps[length - 1]
    assert dones.all()
    assert rewards.dtype == np.float32
    assert rewards.flags.writeable
    assert obs.flags.writeable
    assert all(info["TimeLimit.truncated"] is False for info in infos)
    assert all(info["terminal_observation"].shape == obs.shape[1:] for info in infos)
    assert all("terminal_observation" not in info for info in steps[0][3])


def test_a_time_limit_is_a_truncation_and_a_fall_is_not() -> None:
    env = JaxVecEnv("CartPole-v1", 4, seed=0)
    env.reset()
    fallen = next(s for s in (env.step(np.ones(4, int)) for _ in range(50)) if s[2].any())
    i = int(np.flatnonzero(fallen[2])[0])
    assert fallen[3][i]["TimeLimit.truncated"] is False
    assert abs(fallen[3][i]["terminal_observation"][2]) > 0.2  # the fallen pole, not the next episode's start
    assert abs(fallen[0][i][2]) < 0.06

    short = JaxVecEnv("CartPole-v1", 2, max_steps_in_episode=3)
    short.reset()
    ended = [short.step(np.array([0, 1])) for _ in range(3)][-1]
    assert ended[2].tolist() == [True, True]
    assert [info["TimeLimit.truncated"] for info in ended[3]] == [True, True]


def test_one_step_is_gymnaxs_own_step() -> None:
    env = JaxVecEnv("CartPole-v1", 2, seed=3)
    env.reset()
    jax_env, params = s5_envs.make("CartPole-v1")
    state = jax.tree.map(lambda leaf: leaf[1], env.batch._lanes._state)
    expected = jax_env.step(jax.random.key(0), state, 1, params)[0]
    np.testing.assert_allclose(env.step(np.array([0, 1]))[0][1], expected, rtol=1e-6)


def test_seeds_fix_episodes_whatever_the_number_of_environments() -> None:
    def observations(num_envs: int, seed: int) -> np.ndarray:
        env = JaxVecEnv("RepeatPreviousEasy", num_envs, seed=seed)
        return np.stack([env.reset(), *(env.step(np.zeros(num_envs, int))[0] for _ in range(20))])

    np.testing.assert_array_equal(observations(4, 7)[:, :2], observations(2, 7))
    np.testing.assert_array_equal(observations(4, 7)[:, 1], observations(1, 8)[:, 0])
    assert (observations(1, 7) != observations(1, 9)).any()
    env = JaxVecEnv("RepeatPreviousEasy", 2, seed=0)
    first = env.reset()
    assert (env.reset() != first).any() or (env.reset() != first).any()  # resets go on, they do not repeat
    env.seed(0)
    np.testing.assert_array_equal(env.reset(), first)


def test_dispatched_actions_are_copies() -> None:
    env = JaxVecEnv("CartPole-v1", 2, seed=3)
    env.reset()
    actions = np.array([0, 1])
    env.step_async(actions)
    actions[:] = 1 - actions
    first = env.step_wait()[0]
    env.seed(3)
    env.reset()
    np.testing.assert_array_equal(env.step(np.array([0, 1]))[0], first)


def test_ends_of_trials_are_told() -> None:
    env = JaxVecEnv(s5_envs.Trials(Echo(length=2), 2), 2)
    env.reset()
    told = [env.step(np.zeros((2, 3)))[3][1] for _ in range(6)]
    trials = [(info.get("trial"), info.get("trial_return")) for info in told]
    nothing = (None, None)
    assert trials == [nothing, (0, 3.0), nothing, (1, 3.0), nothing, (0, 3.0)]
    assert ["terminal_observation" in info for info in told] == [False] * 3 + [True] + [False] * 2


def test_it_wraps_in_monitor_and_normalize() -> None:
    env = VecNormalize(VecMonitor(JaxVecEnv("RepeatPreviousEasy", 2)))
    env.reset()
    length = s5_envs.make("RepeatPreviousEasy")[0].episode_length
    infos = [env.step(np.zeros(2, int))[3] for _ in range(length)][-1]
    assert infos[0]["episode"]["l"] == length


def test_continuous_actions_keep_their_values() -> None:
    env = JaxVecEnv("Pendulum-v1", 2)
    assert isinstance(env.action_space, spaces.Box)
    env.reset()
    rewards = [env.step(np.full((2, 1), torque))[1] for torque in (0.0, 2.0)]
    assert np.isfinite(rewards).all()


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: JaxVecEnv("RepeatPreviousEasy", 0), ValueError, "num_envs.*got 0"),
        (lambda: JaxVecEnv("RepeatPreviousEsy", 1), ValueError, "RepeatPreviousEasy"),
        (
            lambda: JaxVecEnv(s5_envs.make("CartPole-v1")[0], 1, k=3),
            ValueError,
            "takes no argument 'k'",
        ),
        (
            lambda: JaxVecEnv("CartPole-v1", 1).step(np.zeros(1, int)),
            ResetNeeded,
            r"call reset\(\) first",
        ),
        (lambda: JaxVecEnv("CartPole-v1", 1).set_attr("gravity", 1), NotImplementedError, "gravity"),
        (lambda: JaxVecEnv("CartPole-v1", 1).env_method("jump"), NotImplementedError, "jump"),
    ],
)
def test_wrong_use_is_told(make, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        make()


def test_wrong_actions_are_told() -> None:
    env = JaxVecEnv("CartPole-v1", 2)
    env.reset()
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(3,\)"):
        env.step(np.zeros(3, int))
    with pytest.raises(ValueError, match=r"an action of Discrete\(2\), got 2"):
        env.step(np.array([0, 2]))
    env.set_options({"start": 1})
    with pytest.raises(ValueError, match="no reset options"):
        env.reset()


def _child(queue: multiprocessing.Queue) -> None:
    try:
        JaxVecEnv("CartPole-v1", 1).reset()
        queue.put("ran")
    except RuntimeError as error:
        queue.put(str(error))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that can fork")
@pytest.mark.filterwarnings("ignore:.*fork:RuntimeWarning", "ignore:.*fork:DeprecationWarning")
def test_a_forked_process_is_refused_before_it_can_deadlock() -> None:
    JaxVecEnv("CartPole-v1", 1).reset()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_child, args=(queue,))
    process.start()
    answer = queue.get(timeout=30)
    process.join(timeout=30)
    assert "started by fork" in answer
    assert "forkserver" in answer


@pytest.mark.skipif(sys.platform == "win32", reason="os.fork")
@pytest.mark.filterwarnings("ignore:.*fork:RuntimeWarning", "ignore:.*fork:DeprecationWarning")
def test_a_bare_fork_is_refused_too() -> None:
    pid = os.fork()
    if pid == 0:
        try:
            refuse_forked_process()
        except RuntimeError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
