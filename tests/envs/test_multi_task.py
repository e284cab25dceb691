"""MultiTask: each slice of a batch is its own family's, alike from outside; MetaControl-v0 is made of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import s5_envs
from s5_envs import Family, MultiTask, PreviousReward, ScaleReward, Trials
from s5_envs.base import EnvParams
from tests.envs.echo import Echo

LONG, SHORT = EnvParams(max_steps_in_episode=100), EnvParams(max_steps_in_episode=2)
WIDTH = 6  # of Echo's five numbers and the reward


def two_families() -> MultiTask:
    """One that terminates after 3 steps and shows a number more, one that is truncated after 2."""
    first = PreviousReward(ScaleReward(Echo(length=3), 10.0))
    return MultiTask((Family("long", first, LONG), Family("short", Echo(length=50), SHORT)))


def test_a_batch_is_split_for_good() -> None:
    env = two_families()
    assert env.sizes(5) == (3, 2)
    assert env.families_of(5).tolist() == [0, 0, 0, 1, 1]
    keys = jax.random.split(jax.random.key(0), 5)
    obs, states = env.reset_batch(keys)
    assert obs.shape == (5, WIDTH)
    assert [len(s.time) for s in states] == [3, 2]
    step = jax.jit(env.step_batch)
    for t in range(1, 7):
        keys = jax.random.split(jax.random.key(t), 5)
        before, (obs, states, reward, terminated, truncated, info) = (
            states,
            step(keys, states, jnp.ones((5, 3))),
        )
        np.testing.assert_array_equal(terminated, [t % 3 == 0] * 3 + [False] * 2)
        np.testing.assert_array_equal(truncated, [False] * 3 + [t % 2 == 0] * 2)
        np.testing.assert_array_equal(reward, [10.0 * ((t - 1) % 3 + 1)] * 3 + [(t - 1) % 2 + 1] * 2)
        np.testing.assert_array_equal(info["family"], [0, 0, 0, 1, 1])
        np.testing.assert_array_equal(obs[3:, -1], 0.0)  # padding
        final = info["final_observation"]
        np.testing.assert_array_equal(final[:, 1], np.asarray([(t - 1) % 3 + 1] * 3 + [(t - 1) % 2 + 1] * 2))
        # What a slice does is what its family does by itself.
        for i, rows in enumerate((slice(0, 3), slice(3, 5))):
            family = env.families[i]
            # 1 is Echo's upper bound.
            alone = jax.vmap(family.env.step, (0, 0, 0, None))(
                keys[rows], before[i], jnp.full((len(keys[rows]), 3), 4.0), family.params
            )
            np.testing.assert_allclose(obs[rows, : alone[0].shape[1]], alone[0])
            jax.tree.map(np.testing.assert_allclose, states[i], alone[1])


@dataclass(frozen=True)
class Counted(Echo):
    """Counts the steps that are computed."""

    computed: list[int] = field(default_factory=list, compare=False)

    def transition(self, state: Any, action: Any, draw: None, params: Any) -> Any:
        jax.debug.callback(lambda _: self.computed.append(1), state.time)
        return super().transition(state, action, draw, params)


def test_no_family_computes_another_s_slots() -> None:
    """Neither by a switch nor by a selection."""
    counted = Counted(length=3), Counted(length=50)
    env = MultiTask(tuple(Family(f"of {one.length}", one, LONG) for one in counted))
    keys = jax.random.split(jax.random.key(0), 5)
    states = env.reset_batch(keys)[1]
    step = jax.jit(env.step_batch)
    for _ in range(4):
        states = step(keys, states, jnp.ones((5, 3)))[1]
    jax.effects_barrier()
    assert [len(one.computed) for one in counted] == [4 * 3, 4 * 2]


def test_an_environment_alone_draws_a_family_for_each_episode() -> None:
    env = two_families()
    step = jax.jit(env.step)
    obs, state = env.reset(jax.random.key(0))
    families, time = [int(state.family)], 0
    for t in range(120):
        family = families[-1]
        time += 1
        obs, state, reward, terminated, truncated, info = step(jax.random.key(t), state, jnp.zeros(3))
        assert int(info["family"]) == family
        assert bool(terminated) == (family == 0 and time == 3)
        assert bool(truncated) == (family == 1 and time == 2)
        assert float(reward) == (10.0 * time if family == 0 else time)
        assert float(info["final_observation"][1]) == time
        if terminated | truncated:
            families.append(int(state.family))
            time = 0
        assert float(obs[1]) == time
        assert float(obs[-1]) == (10.0 * time if families[-1] == 0 else 0.0)
    assert 10 < np.sum(families) < len(families) - 10


def test_discrete_families_share_the_most_actions() -> None:
    env = MultiTask((Family("two", Echo(num_choices=2), LONG), Family("three", Echo(num_choices=3), LONG)))
    assert env.action_space().n == env.num_actions == 3
    keys = jax.random.split(jax.random.key(0), 4)
    _, states = env.reset_batch(keys)
    *_, info = env.step_batch(keys, states, jnp.array([1, 2, 1, 2]))
    np.testing.assert_array_equal(info["final_observation"][:, 2], [1, 0, 1, 2])


def test_entries_of_info_that_all_families_have_remain() -> None:
    trials = [Trials(Echo(length=n), 2) for n in (2, 3)]
    env = MultiTask(tuple(Family(str(i), e, LONG) for i, e in enumerate(trials)))
    assert {"trial", "trial_return", "trial_ended"} <= set(env.step(*_arguments(env))[-1])
    mixed = MultiTask((Family("trials", trials[0], LONG), Family("none", Echo(), LONG)))
    assert set(mixed.step(*_arguments(mixed))[-1]) == {
        "family",
        "terminated",
        "truncated",
        "final_observation",
    }


def _arguments(env: Any) -> tuple[Any, ...]:
    key = jax.random.key(0)
    return key, env.reset(key)[1], s5_envs.spaces.null_value(env.action_space())


def test_a_limit_is_for_each_family() -> None:
    params = two_families().default_params.replace(max_steps_in_episode=7)
    assert [p.max_steps_in_episode for p in params.families] == [7, 7]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MultiTask(()), "expected families with names of their own, got []"),
        (
            lambda: MultiTask((Family("a", Echo(), LONG), Family("b", Echo(num_choices=2), LONG))),
            "expected Box actions or discrete ones throughout, got a Box",
        ),
        (lambda: two_families().sizes(1), "2 families need as many environments or more, got 1"),
        (lambda: ScaleReward(Echo(), -1.0), "scale must be positive, got -1.0"),
        (lambda: s5_envs.make("MetaControl-v0", split="test"), "must be training or held_out, got 'test'"),
        (
            lambda: s5_envs.make("MetaControl-v0", tasks=["Ant"]),
            "tasks must be some of Pendulum-v1, Reacher-misc",
        ),
        (lambda: s5_envs.make("MetaControl-v0", trials=2), "MetaControl-v0 has no argument 'trials'"),
    ],
)
def test_one_clear_line(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_meta_control_plays_training_and_held_out_tasks() -> None:
    splits = {split: s5_envs.make("MetaControl-v0", split=split) for split in ("training", "held_out")}
    names = {split: {f.name for f in env.families} for split, (env, _) in splits.items()}
    assert not names["training"] & names["held_out"]
    assert len(names["training"] | names["held_out"]) == 5
    shapes = {(env.observation_space(p).shape, env.action_space(p).shape) for env, p in splits.values()}
    assert shapes == {((16,), (2,))}
    env, params = s5_envs.make("MetaControl-v0", tasks=("MountainCarContinuous-v0", "PointRobot-misc"))
    keys = jax.random.split(jax.random.key(0), 4)
    obs, states = env.reset_batch(keys, params)
    types = jax.tree.map(lambda x: (x.shape, x.dtype), states)
    step = jax.jit(env.step_batch)
    limit = 100
    for t in range(limit):
        keys = jax.random.split(jax.random.key(t), 4)
        action = jax.random.uniform(keys[0], (4, 2), minval=-1.0, maxval=1.0)
        obs, states, reward, terminated, truncated, info = step(keys, states, action, params)
        assert np.isfinite(obs).all()
        assert (np.abs(reward) <= 1.01).all()
    np.testing.assert_array_equal(truncated, [False, False, True, True])
    assert not terminated.any()
    np.testing.assert_array_equal(obs[2:, 12:], 0.0)  # of a new task: no action, no reward, no trial's end
    np.testing.assert_allclose(info["final_observation"][:, 12:14], action, rtol=1e-6)
    np.testing.assert_array_equal(info["final_observation"][:, 15], 0.0)  # no trial begins
    assert jax.tree.map(lambda x: (x.shape, x.dtype), states) == types
