"""The reference's families: their hidden state, and policies that see it.

Together the policies of a family reach every branch of its rewards and every way to end.
"""

from __future__ import annotations

import copy
import importlib
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Policy = Callable[[Any, np.random.Generator], Callable[[int], Any]]


@dataclass
class Reference:
    """How to play and to watch one family of the reference.

    Attributes:
        prefix: popgym's class without its difficulty.
        hidden: the hidden state after a reset, ``h_*`` fields.
        policies: each takes environment and generator at an episode's start and returns ``step -> action``.
        before: ``x_*`` fields that are known before a step.
        after: ``x_*`` fields that are known after it.
    """

    prefix: str
    hidden: Callable[[Any], dict[str, Any]]
    policies: dict[str, Policy]
    before: Callable[[Any], dict[str, Any]] = field(default=lambda env: {})
    after: Callable[[Any], dict[str, Any]] = field(default=lambda env: {})

    def build(self, family: str, variant: str) -> Any:
        """Build the reference's environment."""
        with warnings.catch_warnings():
            # popgym advises against its own labyrinths at every construction.
            warnings.simplefilter("ignore", DeprecationWarning)
            return getattr(importlib.import_module(f"popgym.envs.{family}"), self.prefix + variant)()


def _uniform(env: Any, rng: np.random.Generator) -> Callable[[int], Any]:
    space = copy.deepcopy(env.action_space)
    space.seed(int(rng.integers(2**31)))
    return lambda t: space.sample()


def _always(action: Any) -> Policy:
    return lambda env, rng: lambda t: action


def _listed(actions: Callable[[Any], Iterable[Any]]) -> Policy:
    """Play a list of actions, the last one for ever."""

    def policy(env: Any, rng: np.random.Generator) -> Callable[[int], Any]:
        plan = list(actions(env))
        return lambda t: plan[min(t, len(plan) - 1)]

    return policy


def _quiz(
    answer: Callable[[Any], Callable[[int], int]], num_answers: Callable[[Any], int]
) -> dict[str, Policy]:
    """Right, wrong and random answers."""

    def wrong(env: Any, rng: np.random.Generator) -> Callable[[int], int]:
        right, n = answer(env), num_answers(env)
        return lambda t: (right(t) + 1) % n

    return {"optimal": lambda env, rng: answer(env), "wrong": wrong, "random": _uniform}


def _suits(env: Any) -> np.ndarray:
    return env.deck.suits_idx[env.deck.idx[::-1]]


def _suit_deck(env: Any) -> dict[str, Any]:
    return {"h_deck_idx": env.deck.idx, "h_dealt_suit": _suits(env)}


def _first_suit(env: Any) -> Callable[[int], int]:
    first = int(_suits(env)[0])
    return lambda t: first


def _earlier_suit(env: Any) -> Callable[[int], int]:
    suits = _suits(env)
    return lambda t: int(suits[max(t + 1 - env.k, 0)])


def _backwards(env: Any) -> Callable[[int], int]:
    suits = _suits(env)
    last = len(suits) - 1
    return lambda t: int(suits[last - max(t - last, 0)])


def _count_decks(env: Any) -> tuple[np.ndarray, np.ndarray]:
    return tuple(env.deck_idx_type[deck.idx[::-1]] for deck in (env.value_deck, env.query_deck))


def _count_hidden(env: Any) -> dict[str, Any]:
    values, queries = _count_decks(env)
    return {
        "h_value_idx": env.value_deck.idx,
        "h_query_idx": env.query_deck.idx,
        "h_dealt_value": values,
        "h_dealt_query": queries,
    }


def _count(env: Any) -> Callable[[int], int]:
    values, queries = _count_decks(env)
    return lambda t: int((values[: t + 1] == queries[t]).sum())


def _ranks(env: Any) -> np.ndarray:
    return env.deck.ranks_idx[env.deck.idx[::-1]]


def _likelier(env: Any) -> Callable[[int], int]:
    ranks = _ranks(env)
    return lambda t: int((ranks[t + 1 :] > ranks[t]).sum() < (ranks[t + 1 :] < ranks[t]).sum())


def _squares(chosen: Callable[[Any], np.ndarray]) -> Callable[[Any], Iterable[Any]]:
    return lambda env: np.argwhere(chosen(env))


def _hit_again(env: Any) -> Iterator[Any]:
    ships = np.argwhere(env.board == 1)
    yield from (ships[0], ships[0], ships[1])
    yield from itertools.repeat(ships[0], 5)


def _ships_last(env: Any) -> Iterator[Any]:
    yield from np.argwhere(env.board == 0)
    yield from np.argwhere(env.board == 1)


def _pairs(env: Any) -> list[tuple[int, int]]:
    cards = env.deck_idx_type[env.deck.idx]
    places = [np.flatnonzero(cards == c) for c in np.unique(cards)]
    return [(int(a), int(b)) for place in places for a, b in zip(place[::2], place[1::2], strict=True)]


def _face_up(env: Any) -> Iterator[int]:
    (a, b), (c, d), *_ = _pairs(env)
    yield from (a, b)  # a pair
    yield from (a, b)  # a face-up card first, twice
    yield from (c, a)  # a face-up card second
    yield from (c, d, c)


def _mismatches(env: Any) -> Iterator[int]:
    cards = env.deck_idx_type[env.deck.idx]
    yield from (0, int(np.flatnonzero(cards != cards[0])[0]), 0, 0)
    yield from itertools.chain.from_iterable(_pairs(env))


def _last_moment(env: Any) -> Iterator[int]:
    """All pairs, the last of them with the very last step."""
    pairs = _pairs(env)
    yield from itertools.repeat(0, env.episode_length - 2 * len(pairs))
    yield from itertools.chain.from_iterable(pairs)


def _mine_hidden(env: Any) -> dict[str, Any]:
    return {"h_mines": env.hidden_grid == 1, "h_neighbors": env.neighbor_grid}


def _safe_then(then: Callable[[list[Any], list[Any]], list[Any]]) -> Policy:
    def actions(env: Any) -> Iterable[Any]:
        safe, mines = (list(np.argwhere(env.hidden_grid == kind)) for kind in (0, 1))
        return then(safe, mines)

    return _listed(actions)


def _maze_hidden(env: Any) -> dict[str, Any]:
    return {"h_grid": env.maze.grid, "h_start": env.maze.start, "h_end": env.maze.end}


def _walk_to_goal(env: Any) -> Iterator[int]:
    """Breadth first from the goal, then downhill."""
    grid, goal = env.maze.grid, tuple(env.maze.end)
    distance, frontier = {goal: 0}, [goal]
    for square in frontier:
        for near in _near(square):
            if _inside(grid, near) and grid[near] != 1 and near not in distance:
                distance[near] = distance[square] + 1
                frontier.append(near)
    square = tuple(env.maze.start)
    while square != goal:
        options = [(distance.get(near, 10**6), action, near) for action, near in enumerate(_near(square))]
        _, action, square = min(options)
        yield action


def _walk_everywhere(env: Any) -> Iterator[int]:
    """Depth first, every branch walked back."""
    grid, seen = env.maze.grid, {tuple(env.maze.start)}

    def visit(square: tuple[int, int]) -> Iterator[int]:
        for action, near in enumerate(_near(square)):
            if _inside(grid, near) and grid[near] != 1 and near not in seen:
                seen.add(near)
                yield action
                yield from visit(near)
                yield action ^ 1

    return visit(tuple(env.maze.start))


def _near(square: tuple[int, int]) -> list[tuple[int, int]]:
    y, x = square
    return [(y, x - 1), (y, x + 1), (y - 1, x), (y + 1, x)]


def _inside(grid: np.ndarray, square: tuple[int, int]) -> bool:
    return 0 <= square[0] < grid.shape[0] and 0 <= square[1] < grid.shape[1]


def _balance(env: Any, rng: np.random.Generator) -> Callable[[int], int]:
    return lambda t: int(np.dot(env.state, (1.0, 2.0, 30.0, 8.0)) > 0)


def _oversized(env: Any, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
    return lambda t: rng.uniform(-8, 8, 1).astype(np.float32)


def _spin(env: Any, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
    return lambda t: np.array([2.0 if env.state[1] >= 0 else -2.0], np.float32)


def _next_luck(env: Any) -> dict[str, Any]:
    return {"x_u": copy.deepcopy(env.np_random).random()}


def _physics(env: Any) -> dict[str, Any]:
    return {"x_state": np.array(env.state, np.float64)}


def _physics_after(env: Any) -> dict[str, Any]:
    return {"x_next_state": np.array(env.state, np.float64)}


_CARTPOLE = {"balance": _balance, "random": _uniform, "all_left": _always(0), "all_right": _always(1)}
_PENDULUM = {
    "random": _uniform,
    "oversized": _oversized,
    "spin": _spin,
    "zero": _always(np.zeros(1, np.float32)),
}


def _physics_reference(prefix: str, policies: dict[str, Policy]) -> Reference:
    return Reference(
        prefix, lambda env: {"h_state": np.array(env.state, np.float64)}, policies, _physics, _physics_after
    )


REFERENCES: dict[str, Reference] = {
    "autoencode": Reference("Autoencode", _suit_deck, _quiz(_backwards, lambda env: 4)),
    "battleship": Reference(
        "Battleship",
        lambda env: {"h_board": env.board},
        {
            "optimal": _listed(_squares(lambda env: env.board == 1)),
            "all_miss": _listed(_squares(lambda env: env.board == 0)),
            "repeat_hit": _listed(_hit_again),
            "last_moment": _listed(_ships_last),
            "random": _uniform,
        },
    ),
    "concentration": Reference(
        "Concentration",
        lambda env: {"h_deck_idx": env.deck.idx, "h_cards": env.deck_idx_type[env.deck.idx]},
        {
            "optimal": _listed(lambda env: itertools.chain.from_iterable(_pairs(env))),
            "same_twice": _always(3),
            "face_up": _listed(_face_up),
            "mismatches": _listed(_mismatches),
            "last_moment": _listed(_last_moment),
            "random": _uniform,
        },
    ),
    "count_recall": Reference(
        "CountRecall", _count_hidden, _quiz(_count, lambda env: int(env.action_space.n))
    ),
    "higher_lower": Reference(
        "HigherLower",
        lambda env: {"h_deck_idx": env.deck.idx, "h_dealt_rank": _ranks(env)},
        _quiz(_likelier, lambda env: 2),
    ),
    "labyrinth_escape": Reference(
        "LabyrinthEscape",
        _maze_hidden,
        {"optimal": _listed(_walk_to_goal), "random": _uniform, "bump": _always(1)},
    ),
    "labyrinth_explore": Reference(
        "LabyrinthExplore", _maze_hidden, {"depth_first": _listed(_walk_everywhere), "random": _uniform}
    ),
    "minesweeper": Reference(
        "MineSweeper",
        _mine_hidden,
        {
            "optimal": _safe_then(lambda safe, mines: safe),
            "mine_first": _safe_then(lambda safe, mines: mines),
            "mine_last": _safe_then(lambda safe, mines: safe[:-1] + mines),
            "repeat": _safe_then(lambda safe, mines: safe[:2]),
            "random": _uniform,
        },
    ),
    "multiarmed_bandit": Reference(
        "MultiarmedBandit",
        lambda env: {"h_bandits": env.bandits},
        {"optimal": lambda env, rng: _always(int(env.bandits.argmax()))(env, rng), "random": _uniform},
        before=_next_luck,
    ),
    "noisy_position_only_cartpole": _physics_reference("NoisyPositionOnlyCartPole", _CARTPOLE),
    "noisy_position_only_pendulum": _physics_reference("NoisyPositionOnlyPendulum", _PENDULUM),
    "position_only_cartpole": _physics_reference("PositionOnlyCartPole", _CARTPOLE),
    "position_only_pendulum": _physics_reference("PositionOnlyPendulum", _PENDULUM),
    "repeat_first": Reference("RepeatFirst", _suit_deck, _quiz(_first_suit, lambda env: 4)),
    "repeat_previous": Reference("RepeatPrevious", _suit_deck, _quiz(_earlier_suit, lambda env: 4)),
    "velocity_only_cartpole": _physics_reference("VelocityOnlyCartPole", _CARTPOLE),
}
