"""The best play known for each family, by a player who sees the hidden state.

For the card games this is also what perfect memory can do. Where hidden state matters (Battleship,
MineSweeper, Concentration, MultiarmedBandit, the labyrinths) it is what full knowledge of it allows, an upper
bound; the CartPoles and pendulums are balanced by controllers that see velocities and no noise.
"""

from __future__ import annotations

from functools import singledispatch

import jax
import jax.numpy as jnp
import numpy as np

from s5_envs.base import OwnEnvironment
from s5_envs.interface import PyTree
from s5_envs.memory_chain import MemoryChain
from s5_envs.memory_chain import State as MemoryChainState
from s5_envs.popgym import (
    Autoencode,
    Battleship,
    Concentration,
    CountRecall,
    HigherLower,
    MineSweeper,
    MultiarmedBandit,
    RepeatFirst,
    RepeatPrevious,
    autoencode,
    battleship,
    bitboard,
    concentration,
    count_recall,
    higher_lower,
    minesweeper,
    multiarmed_bandit,
    packed,
    physics,
    repeat_first,
    repeat_previous,
)
from s5_envs.popgym.cards import CLASSES
from s5_envs.popgym.cartpole import CartPole
from s5_envs.popgym.higher_lower import HIGHER
from s5_envs.popgym.labyrinth import Labyrinth, Layout
from s5_envs.popgym.pendulum import GRAVITY, LENGTH, MASS, MAX_TORQUE, Pendulum


@singledispatch
def best_action(env: OwnEnvironment, state: PyTree) -> jax.Array:
    """Return the best action known in ``state``; can be jitted and vmapped over states.

    Raises:
        TypeError: for an environment of which no best play is known, and for labyrinths, whose best play is
            ``plan_labyrinth``'s.
    """
    raise TypeError(f"best_action: no best play is known for {env.name}")


@best_action.register
def _(env: RepeatFirst, state: repeat_first.State) -> jax.Array:
    return state.first


@best_action.register
def _(env: RepeatPrevious, state: repeat_previous.State) -> jax.Array:
    return packed.peek(state.cards, env.k - 1)


@best_action.register
def _(env: Autoencode, state: autoencode.State) -> jax.Array:
    return packed.peek(state.cards)


@best_action.register
def _(env: CountRecall, state: count_recall.State) -> jax.Array:
    return (env.fresh_deck() - state.deck)[state.query]


@best_action.register
def _(env: HigherLower, state: higher_lower.State) -> jax.Array:
    """Count cards. Cards are dealt whatever one guesses, so the likelier guess is the best one."""
    ranks = jnp.arange(env.num_classes)
    higher = jnp.where(ranks > state.rank, state.deck, 0).sum()
    lower = jnp.where(ranks < state.rank, state.deck, 0).sum()
    return jnp.where(higher >= lower, HIGHER, 1 - HIGHER)


@best_action.register
def _(env: Battleship, state: battleship.State) -> jax.Array:
    return _first_square(state.ships & ~state.guesses, env.board_size)


@best_action.register
def _(env: MineSweeper, state: minesweeper.State) -> jax.Array:
    return _first_square(~state.mines & ~state.viewed, env.dims[1])


def _first_square(rows: jax.Array, columns: int) -> jax.Array:
    flat = jnp.argmax(bitboard.unpack(rows, columns))
    return jnp.stack([flat // columns, flat % columns])


@best_action.register
def _(env: Concentration, state: concentration.State) -> jax.Array:
    """Turn over the first card without a partner, then its first partner."""
    single = ~state.paired
    other = single & (jnp.arange(env.num_cards) != state.first)
    partner = other & (state.cards == state.cards[state.first])
    return jnp.argmax(jnp.where(state.first >= 0, partner, single))


@best_action.register
def _(env: MultiarmedBandit, state: multiarmed_bandit.State) -> jax.Array:
    return jnp.argmax(state.bandits)


@best_action.register
def _(env: MemoryChain, state: MemoryChainState) -> jax.Array:
    return state.context[state.query]


@best_action.register
def _(env: CartPole, state: physics.State) -> jax.Array:
    """Push towards where a linear-quadratic regulator would."""
    gains = jnp.array([1.0, 2.0, 30.0, 8.0])
    return (state.physics @ gains.astype(state.physics.dtype) > 0).astype(jnp.int32)


@best_action.register
def _(env: Pendulum, state: physics.State) -> jax.Array:
    """Pump energy until it suffices for upright, then hold there with a linear regulator."""
    angle, speed = state.physics
    angle = (angle + jnp.pi) % (2 * jnp.pi) - jnp.pi
    # Energy of a rod about its end; it is what upright needs when 0.
    inertia = MASS * LENGTH**2 / 3
    energy = 0.5 * inertia * speed**2 + MASS * GRAVITY * LENGTH / 2 * (jnp.cos(angle) - 1.0)
    pump = jnp.where(energy < 0, MAX_TORQUE, -MAX_TORQUE) * jnp.where(speed >= 0, 1.0, -1.0)
    hold = -(10.0 * angle + 2.5 * speed)
    near = jnp.abs(hold) < 2 * MAX_TORQUE
    return jnp.where(near & (jnp.abs(angle) < 1.0), hold, pump).clip(-MAX_TORQUE, MAX_TORQUE)[None]


def reveal(env: OwnEnvironment, key: jax.Array) -> PyTree:
    """Deal a whole episode, what the environment draws only when it is first seen included."""
    if isinstance(env, Concentration):
        classes = jnp.repeat(jnp.arange(CLASSES[env.deck_type]), env.num_cards // CLASSES[env.deck_type])
        return jax.random.permutation(key, classes).astype(jnp.int8)
    if isinstance(env, MultiarmedBandit):
        return jax.random.uniform(key, (env.num_bandits,))
    return env.deal(jax.random.bits(key, (env.deal_words,), jnp.uint32), env.default_params)


def plan_labyrinth(env: Labyrinth, layout: Layout) -> np.ndarray:
    """Return the shortest way through a labyrinth as actions, ``(steps,)`` int32.

    To the goal where there is one, else over every square: depth first, the deepest branch last, from which
    nobody has to come back.

    Args:
        env: the labyrinth.
        layout: its hidden state (unbatched).
    """
    free = ~np.asarray(bitboard.unpack(layout.walls, env.size + 1))
    start = _square(layout.start)
    goal = _square(layout.goal) if env.shows_goal else None
    children, order = _search(free, start)
    if goal is not None:
        parent = {child: square for square, under in children.items() for child in under}
        way = [goal]
        while way[-1] != start:
            way.append(parent[way[-1]])
        return _actions(way[::-1])
    depth = dict.fromkeys(order, 0)
    for square in reversed(order):
        depth[square] = max((1 + depth[child] for child in children[square]), default=0)
    walk = [start]
    # Each entry: a square and its branches still to walk, deepest last; nobody returns from the last one.
    trail = [(start, sorted(children[start], key=depth.__getitem__))]
    left = len(order) - 1
    while left:
        _, branches = trail[-1]
        if branches:
            square = branches.pop(0)
            trail.append((square, sorted(children[square], key=depth.__getitem__)))
            left -= 1
        else:
            trail.pop()
        walk.append(trail[-1][0])
    return _actions(walk)


_MOVES = {(0, -1): 0, (0, 1): 1, (-1, 0): 2, (1, 0): 3}
Square = tuple[int, int]


def _square(place: jax.Array) -> Square:
    y, x = place
    return int(y), int(x)


def _search(free: np.ndarray, start: Square) -> tuple[dict[Square, list[Square]], list[Square]]:
    """Search breadth first: return each square's first neighbours, and all squares in that order."""
    children: dict[Square, list[Square]] = {start: []}
    order = [start]
    for square in order:
        for dy, dx in _MOVES:
            near = (square[0] + dy, square[1] + dx)
            inside = 0 <= near[0] < free.shape[0] and 0 <= near[1] < free.shape[1]
            if inside and free[near] and near not in children:
                children[near] = []
                children[square].append(near)
                order.append(near)
    return children, order


def _actions(way: list[Square]) -> np.ndarray:
    steps = np.diff(np.array(way, np.int32), axis=0)
    return np.array([_MOVES[dy, dx] for dy, dx in steps.tolist()], np.int32)
