"""Replay ``wrappers.npz``: the flat observations that POPGym's wrappers make, through the wrappers here.

That file has no hidden state, so it is recovered from the observations themselves: the cards are those that
were shown, the ships lie where there were hits, and so on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from s5_envs import popgym, spaces
from s5_envs.base import OwnEnvironment
from s5_envs.conformance.families import build_own
from s5_envs.conformance.scripted import Scripted, ScriptState
from s5_envs.conformance.traces import TraceError, TraceFile
from s5_envs.interface import PyTree
from s5_envs.popgym import bitboard, cartpole, pendulum
from s5_envs.popgym.deck_game import OneCardGame
from s5_envs.wrappers import FlattenAction, PreviousAction, Wrapper

TOLERANCE = 1e-5


@dataclass
class Counts:
    """The result of an environment's replay."""

    transitions: int
    obs: int
    rewards: int
    largest_reward_difference: float


def replay_wrapped(file: TraceFile, env_id: str) -> Counts | None:
    """Replay one environment's recorded steps; None where that is not possible."""
    env = build_own(env_id)
    recover = next((r for family, r in _RECOVER.items() if isinstance(env, family)), None)
    if env is None or recover is None:
        return None
    actions = file.field(env_id, "action")
    flat_obs = file.field(env_id, "flat_obs", len(actions) + 1).astype(np.float64)
    recorded_reward = file.field(env_id, "reward", len(actions)).astype(np.float64)
    inner = spaces.encoded_space(env.observation_space(env.default_params)).shape[0]
    if flat_obs.shape[1] < inner:
        raise TraceError(
            f"{file.path.name}: '{env_id}/flat_obs' has shape {flat_obs.shape}, expected more columns"
        )

    space = env.action_space(env.default_params)
    parts = actions
    if isinstance(space, spaces.MultiDiscrete):
        parts = np.stack(np.unravel_index(np.clip(actions, 0, space.n - 1), space.nvec), axis=-1)
    try:
        hidden, draws = recover(env, flat_obs[:, :inner], parts, recorded_reward)
    except _NotFound as error:
        raise TraceError(f"{file.path.name}: {env_id}: {error}") from None
    first, final_obs, obs, reward, done = jax.tree.map(
        np.asarray, _play(env, *jax.tree.map(jnp.asarray, (hidden, draws, actions)))
    )
    got = np.concatenate([first[None], final_obs]).astype(np.float64)
    difference = np.abs(reward.astype(np.float64) - recorded_reward)
    wrong = (
        len(got) if got.shape != flat_obs.shape else (~(np.abs(got - flat_obs) <= TOLERANCE)).any(-1).sum()
    )
    # An automatic reset must bring the first observation back, null action and flag included.
    next_obs = np.where(done[:, None], first, final_obs)
    wrong += (~(np.abs(obs - next_obs) <= TOLERANCE)).any(-1).sum()
    return Counts(
        transitions=len(actions),
        obs=int(wrong),
        rewards=int((~(difference <= TOLERANCE)).sum()),
        largest_reward_difference=float(np.max(difference, initial=0.0)),
    )


@partial(jax.jit, static_argnums=0)
def _play(env: OwnEnvironment, hidden: PyTree, draws: PyTree, actions: jax.Array) -> tuple[jax.Array, ...]:
    """Return the first observation and every step's: final observation, observation, reward, done."""
    params, key = env.default_params, jax.random.key(0)  # nothing is drawn: the script decides
    scripted = Scripted(env)
    appended = PreviousAction(scripted)
    wrapped: Wrapper = appended
    if isinstance(env.action_space(params), spaces.MultiDiscrete):
        wrapped = FlattenAction(appended)
    state = scripted.begin(hidden, jax.tree.map(lambda x: x[0], draws), params)

    def step(state: ScriptState, now: tuple[jax.Array, PyTree]) -> tuple[ScriptState, tuple[PyTree, ...]]:
        action, draw = now
        obs, state, reward, terminated, truncated, info = wrapped.step(
            key, replace(state, draw=draw), action, params
        )
        return state, (info["final_observation"], obs, reward, terminated | truncated)

    first = appended.first_obs(scripted.get_obs(state, params))
    return first, *jax.lax.scan(step, state, (actions, draws))[1]


class _NotFound(Exception):
    """No hidden state explains the observations."""


Square = tuple[int, int]
Recovered = tuple[PyTree, PyTree]  # hidden state and draws


def _codes(obs: np.ndarray, *categories: int) -> list[np.ndarray]:
    edges = np.cumsum((0, *categories))
    return [obs[:, a:b].argmax(-1).astype(np.int32) for a, b in itertools.pairwise(edges)]


def _one_card(env: OneCardGame[Any], obs: np.ndarray, actions: np.ndarray, reward: np.ndarray) -> Recovered:
    (cards,) = _codes(obs, env.num_classes)
    return cards[0], cards[1:]


def _autoencode(
    env: popgym.Autoencode, obs: np.ndarray, actions: np.ndarray, reward: np.ndarray
) -> Recovered:
    _, cards = _codes(obs, 2, env.num_classes)
    return cards[0], cards[1:]


def _count_recall(
    env: popgym.CountRecall, obs: np.ndarray, actions: np.ndarray, reward: np.ndarray
) -> Recovered:
    values, queries = _codes(obs, env.num_classes, env.num_classes)
    return (values[0], queries[0]), (values[1:], queries[1:])


def _battleship(
    env: popgym.Battleship, obs: np.ndarray, actions: np.ndarray, reward: np.ndarray
) -> Recovered:
    (hit,) = _codes(obs, 2)
    board = np.zeros((env.board_size, env.board_size), np.int32)
    y, x = actions[hit[1:] == 1].T
    board[y, x] = 1
    ships = bitboard.pack(jnp.asarray(board))
    fleet = env.start(ships, env.default_params).next_fleet
    return ships, jax.tree.map(lambda leaf: jnp.repeat(leaf[None], len(actions), axis=0), fleet)


def _concentration(
    env: popgym.Concentration, obs: np.ndarray, actions: np.ndarray, reward: np.ndarray
) -> Recovered:
    codes = obs.reshape(len(obs), env.num_cards, env.num_classes + 1).argmax(-1)
    seen = codes < env.num_classes
    # A card that was shown has one class throughout; the others stay undrawn.
    cards = np.where(seen.any(0), codes[seen.argmax(0), np.arange(env.num_cards)], -1)
    return cards.astype(np.int8), np.zeros(len(actions), np.int32)


def _bandit(
    env: popgym.MultiarmedBandit, obs: np.ndarray, actions: np.ndarray, reward: np.ndarray
) -> Recovered:
    (paid,) = _codes(obs, 2)
    luck = np.where(paid[1:] == 1, 0.0, 0.75).astype(np.float32)
    return np.full(env.num_bandits, 0.5, np.float32), (luck, np.zeros_like(luck))


def _minesweeper(
    env: popgym.MineSweeper, obs: np.ndarray, actions: np.ndarray, reward: np.ndarray
) -> Recovered:
    (clues,) = _codes(obs, env.num_clues)
    rows, columns = env.dims
    near: dict[frozenset[Square], int] = {}
    for (y, x), clue in zip(actions.tolist(), clues[1:].tolist(), strict=True):
        area = itertools.product(range(max(y - 1, 0), y + 2), range(max(x - 1, 0), x + 2))
        near[frozenset(c for c in area if c[0] < rows and c[1] < columns)] = clue
    # All clicks but the last were survived; whether that one was, its reward says.
    clicked = {tuple(square) for square in actions.tolist()}
    mine = {tuple(actions[-1].tolist())} if reward[-1] <= env.reward_range[0] / 2 else set()
    squares = sorted(set().union(*near) - clicked)
    mines = _lay_mines(squares, mine - {tuple(c) for c in actions[:-1].tolist()}, near, env.num_mines)
    if mines is None:
        raise _NotFound("no placing of the mines explains the counts")
    elsewhere = (c for c in itertools.product(range(rows), range(columns)) if c not in {*squares, *clicked})
    mines |= set(itertools.islice(elsewhere, env.num_mines - len(mines)))
    board = np.zeros(env.dims, np.int32)
    for square in mines:
        board[square] = 1
    return bitboard.pack(jnp.asarray(board)), None


def _lay_mines(
    squares: list[Square],
    mines: set[Square],
    near: dict[frozenset[Square], int],
    most: int,
) -> set[Square] | None:
    """Find mines among ``squares``, in addition to ``mines``, that make every count in ``near`` right."""
    if len(mines) > most or any(len(area & mines) > clue for area, clue in near.items()):
        return None
    if not squares:
        return mines if all(len(area & mines) == clue for area, clue in near.items()) else None
    found = _lay_mines(squares[1:], mines, near, most)
    return found if found is not None else _lay_mines(squares[1:], mines | {squares[0]}, near, most)


def _cartpole(env: cartpole.CartPole, obs: np.ndarray, actions: np.ndarray, reward: np.ndarray) -> Recovered:
    velocity = (obs[1] - obs[0]) / cartpole.TIME_STEP
    physics = np.array([obs[0, 0], velocity[0], obs[0, 1], velocity[1]], np.float32)
    return (physics, np.zeros(2, np.float32)), np.zeros((len(actions), 2), np.float32)


def _pendulum(env: pendulum.Pendulum, obs: np.ndarray, actions: np.ndarray, reward: np.ndarray) -> Recovered:
    angles = np.arctan2(obs[:, 1], obs[:, 0])
    turned = (angles[1] - angles[0] + np.pi) % (2 * np.pi) - np.pi
    still = np.array([angles[0], 0.0])
    torque = np.clip(actions[0].item(), -pendulum.MAX_TORQUE, pendulum.MAX_TORQUE)
    pushed = np.asarray(pendulum.euler_step(jnp.asarray(still), jnp.asarray(torque)))[1]
    physics = np.array([angles[0], turned / pendulum.TIME_STEP - pushed], np.float32)
    return (physics, np.zeros(2, np.float32)), np.zeros((len(actions), 2), np.float32)


_RECOVER: dict[type, Callable[[Any, np.ndarray, np.ndarray, np.ndarray], Recovered]] = {
    popgym.Autoencode: _autoencode,
    popgym.Battleship: _battleship,
    popgym.Concentration: _concentration,
    popgym.CountRecall: _count_recall,
    popgym.HigherLower: _one_card,
    popgym.MineSweeper: _minesweeper,
    popgym.MultiarmedBandit: _bandit,
    popgym.PositionOnlyCartPole: _cartpole,
    popgym.PositionOnlyPendulum: _pendulum,
    popgym.RepeatFirst: _one_card,
    popgym.RepeatPrevious: _one_card,
}
