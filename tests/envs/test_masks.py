"""Masks that environments give: what the rules leave, across episode ends, in every view."""

from __future__ import annotations

from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import s5_envs
from s5_envs.batch import reset_batch, step_batch

NUM_ENVS = 16


def play(env: Any, params: Any, steps: int, *, by_mask: bool, seed: int = 0) -> dict[str, np.ndarray]:
    """Random play, by the masks or by their opposite, as arrays `(steps, NUM_ENVS, ...)`."""
    keys = jax.random.split(jax.random.key(seed), NUM_ENVS)
    obs, state = reset_batch(env, keys, params)

    def step(carry: Any, key: jax.Array) -> Any:
        obs, state = carry
        mask = obs["action_mask"] == 1
        wanted = mask if by_mask else jnp.where(mask.all(1, keepdims=True), mask, ~mask)
        action = jax.random.categorical(key, jnp.where(wanted, 0.0, -jnp.inf)).astype(jnp.int32)
        after, state, reward, terminated, truncated, info = step_batch(
            env, jax.random.split(jax.random.fold_in(key, 1), NUM_ENVS), state, action, params
        )
        told = {
            "mask": mask,
            "action": action,
            "reward": reward,
            "done": terminated | truncated,
            "next_mask": after["action_mask"] == 1,
            "final": info["final_observation"],
            "next": after,
        }
        return (after, state), told

    _, told = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys))(
        (obs, state), jax.random.split(jax.random.key(seed + 1), steps)
    )
    return {name: jax.tree.map(np.asarray, value) for name, value in told.items()}


@pytest.mark.parametrize("env_id", ["BattleshipEasy", "MineSweeperEasy", "ConcentrationEasy"])
def test_masks_forbid_what_the_rules_make_vain(env_id: str) -> None:
    env, params = s5_envs.make(env_id, action_mask=True)
    vain = play(env, params, 150, by_mask=False)
    tried = ~np.take_along_axis(vain["mask"], vain["action"][..., None], axis=-1)[..., 0]
    assert tried.sum() > 100
    assert (vain["reward"][tried] < 0).all()
    by_mask = play(env, params, 150, by_mask=True)
    assert (by_mask["reward"] > 0).sum() > (vain["reward"] > 0).sum()


@pytest.mark.parametrize("env_id", ["BattleshipEasy", "MineSweeperEasy", "ConcentrationEasy"])
def test_masks_follow_automatic_resets(env_id: str) -> None:
    env, params = s5_envs.make(env_id, action_mask=True)
    told = play(env, params, 150, by_mask=True)
    done = told["done"]
    assert done.any()
    assert told["next_mask"][done].all()  # a new episode forbids nothing
    assert (told["final"]["action_mask"][done] == 1).all()
    np.testing.assert_array_equal(told["final"]["action_mask"][~done], told["next"]["action_mask"][~done])


def test_squares_of_a_board_are_masked_row_by_row() -> None:
    env, params = s5_envs.make("MineSweeperEasy", action_mask=True)
    obs, state = env.reset(jax.random.key(0), params)
    for action in (6, 9):
        obs, state, _, terminated, _, _ = env.step(jax.random.key(action), state, jnp.int32(action), params)
        if terminated:
            return
    assert [i for i, allowed in enumerate(obs["action_mask"]) if not allowed] == [6, 9]


def test_gymnasium_sees_a_dict() -> None:
    env = gymnasium.make("s5_envs/ConcentrationEasy-v0", action_mask=True)
    obs, _ = env.reset(seed=0)
    assert obs["action_mask"].dtype == np.int8
    assert env.observation_space.contains(obs)
    obs, *_ = env.step(3)
    assert obs["action_mask"].tolist() == [int(i != 3) for i in range(52)]


def test_an_environment_without_masks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"RepeatPrevious: got action_mask .* Battleship, Concentration"):
        s5_envs.make("RepeatPreviousEasy", action_mask=True)


def test_a_mask_of_another_size_is_refused() -> None:
    env, _ = s5_envs.make("ConcentrationEasy", action_mask=True)

    class Wrong(type(env)):  # type: ignore[misc]
        def observation_space(self, params: Any = None) -> Any:
            space = super().observation_space(params)
            space.spaces["action_mask"] = s5_envs.spaces.Box(0, 1, (51,), jnp.int8)
            return space

    with pytest.raises(ValueError, match="got an action_mask of Box"):
        s5_envs.SplitActionMask(Wrong(env.env))
