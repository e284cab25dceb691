"""MetaCartPole-v0 against a transcription in plain Python of what the paper's released code does."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import s5_envs


class Transcription:
    """Meta StatelessCartPole, written from the released code's rules, one task at a time.

    The task's chance, the projection and the initial state, is handed over; physics is gym's CartPole.
    """

    def __init__(self, kernel: np.ndarray, initial: np.ndarray, num_trials: int, limit: int):
        self.kernel, self.initial, self.num_trials, self.limit = kernel, initial, num_trials, limit
        self.physics, self.time, self.trials_over = initial, 0, 0

    def reset(self) -> list[float]:
        return [*self._projected(), 0.0, 0.0, 1.0]

    def step(self, action: int) -> tuple[list[float], list[float], float, bool, bool]:
        """The next observation, what the step led to before any reset, reward, trial's end, task's end."""
        x, v, angle, spin = (float(p) for p in self.physics)
        force = 10.0 if action == 1 else -10.0
        temp = (force + 0.05 * spin**2 * math.sin(angle)) / 1.1
        spin_acc = (9.8 * math.sin(angle) - math.cos(angle) * temp) / (
            0.5 * (4.0 / 3.0 - 0.1 * math.cos(angle) ** 2 / 1.1)
        )
        acc = temp - 0.05 * spin_acc * math.cos(angle) / 1.1
        self.physics = np.array([x + 0.02 * v, v + 0.02 * acc, angle + 0.02 * spin, spin + 0.02 * spin_acc])
        self.time += 1
        fell = abs(self.physics[0]) > 2.4 or abs(self.physics[2]) > 12 * 2 * math.pi / 360
        ended = fell or self.time >= self.limit
        led_to = [*self._projected(), float(action), 0.0, 0.0]  # after a task's last step: no trial begins
        if ended:
            self.trials_over += 1
            self.physics, self.time = self.initial, 0
        obs = [*self._projected(), float(action), float(ended), 0.0]
        return obs, led_to, 1.0 / self.limit, ended, self.trials_over >= self.num_trials

    def _projected(self) -> list[float]:
        return (np.array([self.physics[0], self.physics[2]]) @ self.kernel).tolist()


def _task(state: Any, num_trials: int, limit: int) -> Transcription:
    """The transcription of the task whose first state this is."""
    kernel = np.asarray(state.obs_matrix, np.float64).T
    np.testing.assert_allclose(kernel @ kernel.T, 2 * np.eye(2), atol=1e-6)  # orthogonal, times sqrt(2)
    physics = np.asarray(state.env_state.env_state.physics, np.float64)
    assert (np.abs(physics) <= 0.05).all()
    return Transcription(kernel, physics, num_trials, limit)


@pytest.mark.parametrize(("num_trials", "limit"), [(3, 200), (4, 12)])
def test_every_step_is_the_released_code_s(num_trials: int, limit: int) -> None:
    env, params = s5_envs.make("MetaCartPole-v0", num_trials=num_trials, max_episode_length=limit)
    key = jax.random.key(11)
    obs, state = env.reset(key, params)
    task = _task(state, num_trials, limit)
    np.testing.assert_allclose(obs, task.reset(), atol=1e-6)
    rng = np.random.default_rng(0)
    tasks = falls = limits = 0
    trial, trial_return = 0, 0.0
    for t in range(320):
        action = int(rng.integers(2))
        obs, state, reward, terminated, truncated, info = env.step(
            jax.random.fold_in(key, t), state, jnp.int32(action), params
        )
        expected, led_to, expected_reward, ended, done = task.step(action)
        trial_return += expected_reward
        assert float(reward) == pytest.approx(expected_reward)
        assert bool(info["trial_ended"]) == ended
        assert int(info["trial"]) == trial
        assert float(info["trial_return"]) == pytest.approx(trial_return, rel=1e-4)
        assert bool(terminated | truncated) == done
        falls += ended and trial_return < 0.999
        limits += ended and trial_return > 0.999
        # Float32 against float64, over a trial of an unstable system.
        tolerance = {"atol": 2e-3, "rtol": 2e-3}
        if done:
            np.testing.assert_allclose(info["final_observation"], led_to, **tolerance)
            assert bool(truncated) == (trial_return > 0.999)
            tasks += 1
            trial = 0
            task = _task(state, num_trials, limit)
            expected = task.reset()
        else:
            trial += ended
            np.testing.assert_array_equal(info["final_observation"], obs)
        trial_return = 0.0 if ended else trial_return
        np.testing.assert_allclose(obs, expected, **tolerance)
    assert tasks >= 3
    assert limits >= 3 if limit == 12 else falls >= 9


def test_it_is_as_published_by_default() -> None:
    env, params = s5_envs.make("MetaCartPole-v0")
    assert env.observation_space(params).shape == (7,)
    assert env.action_space(params).n == 2
    assert params.max_steps_in_episode == 200
    assert env.name == "MetaCartPole"
    step = jax.jit(env.step)
    _, state = env.reset(jax.random.key(0), params)
    trials = []
    for t in range(3200):
        _, state, _, terminated, truncated, info = step(jax.random.key(t), state, jnp.int32(0), params)
        trials.append(int(info["trial"]))
        if terminated | truncated:
            break
    assert sorted(set(trials)) == list(range(16))
    # The run script's further input: the previous action one-hot, and a flag on the task's first observation.
    assert s5_envs.make("MetaCartPole-v0", previous_action=True)[0].observation_space(params).shape == (11,)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(
        ValueError, match="has no argument 'trials'; it takes: max_episode_length, num_trials, obs_dim"
    ):
        s5_envs.make("MetaCartPole-v0", trials=3)
    with pytest.raises(ValueError, match="num_trials must be a positive integer, got 0"):
        s5_envs.make("MetaCartPole-v0", num_trials=0)
