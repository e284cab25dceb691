"""Replay a family's file and count the differences."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from s5_envs.base import EnvParams, OwnEnvironment
from s5_envs.conformance.families import FAMILIES, Family, on_the_edge
from s5_envs.conformance.scripted import Scripted, ScriptState
from s5_envs.conformance.traces import Episodes, TraceError, TraceFile
from s5_envs.conformance.wrapped import replay_wrapped
from s5_envs.interface import PyTree

STRETCH = 100
"""Steps of physics replayed open loop in float64 before starting again from the recorded state.

Two upright poles or pendulums fall away from each other by a factor of up to 1.2 a step, so a difference in
the last bit of a sine grows to 1e-5 within 130 to 320 steps, whoever computes it.
"""


@dataclass
class Result:
    """The result of a family's replay."""

    family: str
    mode: str = ""
    episodes: int = 0
    transitions: int = 0
    obs: int = 0
    rewards: int = 0
    largest_reward_difference: float = 0.0
    terminated: int = 0
    truncated: int = 0
    not_replayed: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether everything was replayed and nothing differed."""
        mismatches = self.obs + self.rewards + self.terminated + self.truncated
        return mismatches == 0 and not self.not_replayed and self.episodes > 0


def replay_file(file: TraceFile) -> list[Result]:
    """Replay every variant of a file: one result, or two (one step, open loop) for physics.

    Raises:
        TraceError: for a file that lacks something.
    """
    if file.family == "wrappers":
        return [_replay_wrappers(file)]
    family = FAMILIES.get(file.family)
    if family is None:
        return [Result(file.family, not_replayed=file.variants or ["(unknown family)"])]
    if not family.physics:
        return [_replay_family(family, file)]
    one_step = _replay_family(family, file, "one step", stretch=1)
    with jax.enable_x64(True):
        open_loop = _replay_family(family, file, "open loop, x64", stretch=STRETCH)
    return [one_step, open_loop]


def _replay_wrappers(file: TraceFile) -> Result:
    result = Result(file.family)
    for variant in file.variants:
        counts = replay_wrapped(file, variant) if variant in file.meta else None
        if counts is None:
            result.not_replayed.append(variant)
            continue
        result.episodes += 1
        result.transitions += counts.transitions
        result.obs += counts.obs
        result.rewards += counts.rewards
        result.largest_reward_difference = max(
            result.largest_reward_difference, counts.largest_reward_difference
        )
    return result


def _replay_family(family: Family, file: TraceFile, mode: str = "", stretch: int = 0) -> Result:
    result = Result(file.family, mode)
    for variant in file.variants:
        env = family.environment(variant, file.meta[variant]) if variant in file.meta else None
        episodes = file.episodes(variant) if env is not None else None
        if env is None or episodes is None or episodes.num_episodes == 0:
            result.not_replayed.append(variant)
        else:
            _compare(result, family, env, episodes, stretch)
    return result


def _compare(result: Result, family: Family, env: OwnEnvironment, episodes: Episodes, stretch: int) -> None:
    valid, tolerance = episodes.valid, family.tolerance
    first, steps = _replay(family, env, episodes, stretch)
    reset_obs = family.expected_obs(env, episodes.per_episode("reset_obs"))
    obs = family.expected_obs(env, episodes.per_step("obs"))
    reward = episodes.per_step("reward").astype(np.float64)

    difference = np.abs(steps["reward"].astype(np.float64) - reward)
    ended = steps["terminated"] | steps["truncated"]
    excused = np.zeros_like(valid)
    if family.physics:
        excused = on_the_edge(episodes.per_step("x_next_state"), tolerance)

    # Written so that a NaN on either side is a mismatch.
    wrong_obs = ~_close(steps["final_obs"], obs, tolerance)
    # What follows the automatic reset is the first observation again, in this script; else the step's own.
    next_obs = np.where(ended[..., None], first[:, None], steps["final_obs"])
    wrong_obs |= ~_close(steps["obs"], next_obs, tolerance)
    wrong_reward = ~(difference <= tolerance)
    result.episodes += episodes.num_episodes
    result.transitions += episodes.num_steps
    result.obs += int((~_close(first, reset_obs, tolerance)).sum() + (wrong_obs & valid).sum())
    result.rewards += int((wrong_reward & valid).sum())
    if episodes.has("ep_return"):
        returns = np.where(valid, reward, 0.0).sum(1)
        result.rewards += int((~(np.abs(returns - episodes.per_episode("ep_return")) <= tolerance)).sum())
    largest = float(np.max(difference[valid], initial=0.0))
    result.largest_reward_difference = float(np.fmax(result.largest_reward_difference, largest))
    for flag in ("terminated", "truncated"):
        wrong = (steps[flag] != episodes.per_step(flag).astype(bool)) & ~excused
        setattr(result, flag, getattr(result, flag) + int((wrong & valid).sum()))
    if family.physics:
        reached = episodes.per_step("x_next_state")
        wrong = ~_close(steps["physics"], reached, tolerance * np.maximum(1.0, np.abs(reached)))
        result.obs += int((wrong & ~wrong_obs & valid).sum())


def _close(got: np.ndarray, expected: np.ndarray, tolerance: float | np.ndarray) -> np.ndarray:
    if got.shape != expected.shape:
        return np.zeros(got.shape[:-1], bool)
    close: np.ndarray = (np.abs(got - expected) <= tolerance).all(-1)
    return close


def _replay(
    family: Family, env: OwnEnvironment, episodes: Episodes, stretch: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the first observations ``(E, n)`` and what every step led to, ``(E, T, ...)``."""
    hidden = family.hidden(env, episodes)
    steps = {"action": episodes.per_step("action"), "draw": family.draws(env, episodes)}
    _check_shapes(env, episodes, hidden, steps["action"])
    if family.physics:
        again = np.arange(episodes.valid.shape[1]) % stretch == 0
        steps["physics"] = episodes.per_step("x_state")
        steps["again"] = np.broadcast_to(again, episodes.valid.shape)
        if steps["physics"].shape[2:] != hidden[0].shape[1:]:
            raise TraceError(
                f"{episodes.file.path.name}: '{episodes.variant}/x_state' has rows of shape "
                f"{steps['physics'].shape[2:]}, expected {hidden[0].shape[1:]}"
            )
    first, outcome = _play(Scripted(env), env.default_params, *jax.tree.map(jnp.asarray, (hidden, steps)))
    return np.asarray(first), jax.tree.map(np.asarray, outcome)


def _check_shapes(env: OwnEnvironment, episodes: Episodes, hidden: PyTree, actions: np.ndarray) -> None:
    """Raise TraceError unless hidden state and actions have the environment's shapes."""
    params = env.default_params
    where = f"{episodes.file.path.name}: {episodes.variant}"
    words = jax.ShapeDtypeStruct((env.deal_words,), jnp.uint32)
    dealt = jax.tree.leaves(jax.eval_shape(lambda w: env.deal(w, params), words))
    recorded = [x.shape[1:] for x in jax.tree.leaves(hidden)]
    if recorded != [x.shape for x in dealt]:
        raise TraceError(f"{where}: hidden state has shapes {recorded}, expected {[x.shape for x in dealt]}")
    shape = env.action_space(params).shape
    if actions.shape[2:] != shape:
        raise TraceError(f"{where}: actions have shape {actions.shape[2:]}, expected {shape}")


@partial(jax.jit, static_argnums=0)
def _play(
    env: Scripted, params: EnvParams, hidden: PyTree, steps: dict[str, PyTree]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    key = jax.random.key(0)  # nothing is drawn: the script decides

    def episode(hidden: PyTree, steps: dict[str, PyTree]) -> tuple[jax.Array, dict[str, jax.Array]]:
        state = env.begin(hidden, jax.tree.map(lambda x: x[0], steps["draw"]), params)

        def step(state: ScriptState, now: dict[str, PyTree]) -> tuple[ScriptState, dict[str, jax.Array]]:
            state = replace(state, draw=now["draw"])
            if "physics" in now:
                physics = jnp.where(now["again"], now["physics"], state.inner.physics)
                state = replace(state, inner=replace(state.inner, physics=physics))
            obs, after, reward, terminated, truncated, info = env.step(key, state, now["action"], params)
            outcome = {
                "obs": obs,
                "final_obs": info["final_observation"],
                "reward": reward,
                "terminated": terminated,
                "truncated": truncated,
            }
            if "physics" in now:
                outcome["physics"] = after.reached.physics
            return after, outcome

        return env.get_obs(state), jax.lax.scan(step, state, steps)[1]

    return jax.vmap(episode)(hidden, steps)
