"""The best play known scores in the environments here exactly what it scores in the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import s5_envs
from s5_envs.conformance.families import FAMILIES
from s5_envs.conformance.scripted import Scripted
from s5_envs.conformance.traces import Episodes, TraceFile
from s5_envs.optimal import best_action, plan_labyrinth
from tests.envs.record_traces import record_family
from tests.envs.reference import REFERENCES

SEED = 52_000
PERFECT = {
    "autoencode": "Easy",
    "battleship": "Easy",
    "concentration": "Hard",
    "count_recall": "Hard",
    "memory_chain": "L12_B3",
    "minesweeper": "Medium",
    "repeat_first": "Easy",
    "repeat_previous": "Medium",
}
"""Families in which perfect play always scores 1, and the variant played here."""
LESS_THAN_PERFECT = {"higher_lower": "Easy", "multiarmed_bandit": "Easy"}


def _recorded(family: str, variant: str, tmp_path: Path) -> Episodes:
    variants = () if family == "memory_chain" else ((variant,),)
    arrays = record_family(family, seed=SEED, episodes=2, **({"variants": variants[0]} if variants else {}))
    np.savez(tmp_path / f"{family}.npz", **arrays)
    return TraceFile(tmp_path / f"{family}.npz").episodes(variant)


def _play(env: Any, hidden: Any, draws: Any, num_steps: int) -> jax.Array:
    """Play one recorded episode's chance with the best actions known; returns the rewards, ``(T,)``."""
    scripted, params, key = Scripted(env), env.default_params, jax.random.key(0)
    state = scripted.begin(hidden, jax.tree.map(lambda x: x[0], draws), params)

    def step(carry: Any, draw: Any) -> tuple[Any, jax.Array]:
        state, running = carry
        action = best_action(env, state.inner)
        _, state, reward, terminated, truncated, _ = scripted.step(key, state.replace(draw=draw), action)
        return (state, running & ~(terminated | truncated)), jnp.where(running, reward, 0.0)

    return jax.lax.scan(step, (state, jnp.array(True)), draws, length=num_steps)[1]


@pytest.mark.parametrize(("family", "variant"), [*PERFECT.items(), *LESS_THAN_PERFECT.items()])
def test_scores_what_the_reference_gives(family: str, variant: str, tmp_path: Path) -> None:
    episodes = _recorded(family, variant, tmp_path)
    rules = FAMILIES[family]
    env = rules.environment(variant, episodes.file.meta[variant])
    to_device = lambda tree: jax.tree.map(jnp.asarray, tree)  # noqa: E731
    play = jax.jit(jax.vmap(lambda hidden, draws: _play(env, hidden, draws, episodes.valid.shape[1])))
    rewards = play(to_device(rules.hidden(env, episodes)), to_device(rules.draws(env, episodes)))
    returns = np.asarray(rewards, np.float64).sum(1)
    optimal = episodes.file._arrays[f"{variant}/ep_policy"] == "optimal"
    assert optimal.sum() == 2
    reference = episodes.per_episode("ep_return")[optimal]
    np.testing.assert_allclose(returns[optimal], reference, atol=2e-6)
    if family in PERFECT:
        np.testing.assert_allclose(returns, 1.0, atol=2e-6)


@pytest.mark.parametrize("family", ["labyrinth_escape", "labyrinth_explore"])
def test_labyrinth_plans_score_what_the_reference_gives(family: str) -> None:
    reference = REFERENCES[family]
    theirs = reference.build(family, "Easy")
    env, params = s5_envs.make(reference.prefix + "Easy", previous_action=False)
    transition = jax.jit(env.transition)
    for seed in range(SEED, SEED + 3):
        theirs.reset(seed=seed)
        hidden = reference.hidden(theirs)
        layout = env.layout_of_grid(*(np.array(hidden[f"h_{name}"]) for name in ("grid", "start", "end")))
        plan = plan_labyrinth(env, layout)
        state = env.start(layout, params)
        ours = expected = 0.0
        for i, action in enumerate(plan):
            _, reward, done, truncated, _ = theirs.step(int(action))
            state, our_reward, terminated = transition(state, action, layout.next_maze, params)
            ours, expected = ours + float(our_reward), expected + reward
            assert not truncated
            assert bool(terminated) == done == (i == len(plan) - 1)
        assert ours == pytest.approx(expected, abs=1e-5)
        # Depth first with every branch walked back, and the shortest way out, are no shorter.
        theirs.reset(seed=seed)
        name = "optimal" if family == "labyrinth_escape" else "depth_first"
        act, theirs_total, done, t = (
            reference.policies[name](theirs, np.random.default_rng(0)),
            0.0,
            False,
            0,
        )
        while not done:
            _, reward, done, _, _ = theirs.step(act(t))
            theirs_total, t = theirs_total + reward, t + 1
        assert ours >= theirs_total - 1e-5


def test_unknown_families_are_named() -> None:
    env, _ = s5_envs.make("LabyrinthEscapeEasy", previous_action=False)
    with pytest.raises(TypeError, match="no best play is known for LabyrinthEscape"):
        best_action(env, None)


@pytest.mark.parametrize(
    ("env_id", "at_least"), [("PositionOnlyCartPoleHard", 1.0), ("PositionOnlyPendulumEasy", 0.7)]
)
def test_controllers_control(env_id: str, at_least: float) -> None:
    env, params = s5_envs.make(env_id)

    def episode(key: jax.Array) -> jax.Array:
        _, state = env.reset_env(key, params)

        def step(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            _, state, reward, terminated, _ = env.step_env(key, state, best_action(env, state), params)
            return state, jnp.where(terminated, -1.0, reward)

        return jax.lax.scan(step, state, jax.random.split(key, env.episode_length))[1].sum()

    returns = jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(3), 64))
    assert returns.min() > at_least - 1e-3
