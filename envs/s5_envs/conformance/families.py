"""How each family's file records chance, and how its observations look here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import numpy as np

from s5_envs.base import Environment, OwnEnvironment
from s5_envs.conformance.traces import Episodes, TraceError
from s5_envs.interface import PyTree
from s5_envs.memory_chain import MemoryChain
from s5_envs.popgym import CountRecall, MultiarmedBandit, bitboard
from s5_envs.popgym.cartpole import ANGLE_LIMIT, X_LIMIT
from s5_envs.popgym.deck_game import DeckGame
from s5_envs.popgym.labyrinth import Labyrinth, Layout
from s5_envs.popgym.physics import Physics
from s5_envs.registration import make, registered_ids

Fields: TypeAlias = Callable[[Any, Episodes], PyTree]
"""Read something out of the recorded episodes of the family's environment."""


def build_own(env_id: str) -> OwnEnvironment | None:
    """Build one of this package's environments without wrappers; None where there is none of this id."""
    env = make(env_id, previous_action=False)[0] if env_id in registered_ids() else None
    return env if isinstance(env, Environment) else None


@dataclass(frozen=True)
class Family:
    """One family's way of being recorded.

    Attributes:
        prefix: an environment's id without its variant.
        hidden: what ``Environment.start`` takes, batched ``(E, ...)``.
        draws: what ``Environment.transition`` takes as draws, batched ``(E, T, ...)``.
        codes: the categories of each discrete part of an observation; None for real numbers.
        physics: the state holds real-valued ``physics``, recorded before (``x_state``) and after each step.
        tolerance: largest difference of rewards and real-valued observations that is not a mismatch.
    """

    prefix: str
    hidden: Fields
    draws: Fields
    codes: Callable[[Any], tuple[int, ...]] | None = None
    physics: bool = False
    tolerance: float = 1e-6

    def environment(self, variant: str, meta: dict[str, Any]) -> OwnEnvironment | None:
        """Build the variant's environment; None where there is no such variant."""
        return build_own(self.prefix + variant)

    def expected_obs(self, env: OwnEnvironment, recorded: np.ndarray) -> np.ndarray:
        """Encode recorded observations ``(..., parts)`` as the environment does: ``(..., features)``."""
        if self.codes is None:
            return recorded.astype(np.float32)
        categories = self.codes(env)
        parts = recorded.reshape(*recorded.shape, 1) if len(categories) == 1 else recorded
        if parts.shape[-1] != len(categories):
            raise TraceError(
                f"observations of {self.prefix} have {len(categories)} parts, not {parts.shape[-1]}"
            )
        hot = [parts[..., i, None] == np.arange(n) for i, n in enumerate(categories)]
        return np.concatenate(hot, axis=-1).astype(np.float32)


@dataclass(frozen=True)
class MemoryChainFamily(Family):
    """Variants are named by their sizes, and ``meta`` gives them."""

    def environment(self, variant: str, meta: dict[str, Any]) -> OwnEnvironment | None:
        """Build the chain of the variant's length and width."""
        try:
            length, num_bits = (int(meta[name]) for name in ("memory_length", "num_bits"))
        except (KeyError, TypeError, ValueError):
            raise TraceError(f"memory_chain: 'meta' of {variant} needs memory_length and num_bits") from None
        return MemoryChain(memory_length=length, num_bits=num_bits)


def _upcoming(dealt: np.ndarray, episodes: Episodes) -> np.ndarray:
    """Return the cards dealt by each step, ``(E, T)``; zeros where a game goes on after its last card."""
    num_steps = episodes.valid.shape[1]
    cards = np.zeros((len(dealt), max(num_steps, dealt.shape[1])), np.int32)
    cards[:, : dealt.shape[1] - 1] = dealt[:, 1:]
    return cards[:, :num_steps]


def _deck_family(prefix: str, field: str, codes: Callable[[Any], tuple[int, ...]]) -> Family:
    return Family(
        prefix,
        hidden=lambda env, e: _dealt(env, e, field)[:, 0],
        draws=lambda env, e: _upcoming(_dealt(env, e, field), e),
        codes=codes,
    )


def _dealt(env: DeckGame[Any, Any], episodes: Episodes, field: str) -> np.ndarray:
    dealt = episodes.per_episode(field).astype(np.int32)
    if dealt.shape[1:] != (env.num_cards,):
        raise TraceError(
            f"{episodes.file.path.name}: '{episodes.variant}/{field}' has shape {dealt.shape}, "
            f"expected {env.num_cards} cards an episode"
        )
    return dealt


def _count_recall_hidden(env: CountRecall, e: Episodes) -> tuple[np.ndarray, ...]:
    return tuple(_dealt(env, e, f)[:, 0] for f in ("h_dealt_value", "h_dealt_query"))


def _count_recall_draws(env: CountRecall, e: Episodes) -> tuple[np.ndarray, ...]:
    return tuple(_upcoming(_dealt(env, e, f), e) for f in ("h_dealt_value", "h_dealt_query"))


def _packed_board(field: str) -> Fields:
    return lambda env, e: jax.jit(jax.vmap(bitboard.pack))(e.per_episode(field))


def _prepared(field: str) -> Fields:
    """Return the draws of an environment that prepares its next episode: the first state's ``field``."""

    def draws(env: OwnEnvironment, e: Episodes) -> PyTree:
        hidden = FAMILIES[e.file.family].hidden(env, e)
        first = jax.jit(jax.vmap(lambda h: env.start(h, env.default_params)))(hidden)
        for name in field.split("."):
            first = getattr(first, name)
        num_steps = e.valid.shape[1]
        return jax.tree.map(lambda x: np.repeat(np.asarray(x)[:, None], num_steps, axis=1), first)

    return draws


def _labyrinth_hidden(env: Labyrinth, e: Episodes) -> Layout:
    fields = [e.per_episode(name) for name in ("h_grid", "h_start", "h_end")]
    side = env.size + 1
    if fields[0].shape[1:] != (side, side):
        raise TraceError(
            f"{e.file.path.name}: '{e.variant}/h_grid' has shape {fields[0].shape}, "
            f"expected (E, {side}, {side})"
        )
    layouts: Layout = jax.jit(jax.vmap(env.layout_of_grid))(*fields)
    return layouts


def _bandit_draws(env: MultiarmedBandit, e: Episodes) -> tuple[np.ndarray, np.ndarray]:
    # The reference compares numpy's float64 draw in float32.
    luck = e.per_step("x_u").astype(np.float32)
    return luck, np.zeros_like(luck)


def _physics_hidden(noisy: bool) -> Fields:
    def hidden(env: Physics, e: Episodes) -> tuple[np.ndarray, np.ndarray]:
        state = e.per_episode("h_state")
        noise = e.per_episode("reset_noise") if noisy else np.zeros((len(state), 2))
        return state, noise.astype(np.float32)

    return hidden


def _physics_draws(noisy: bool) -> Fields:
    def draws(env: Physics, e: Episodes) -> np.ndarray:
        noise = e.per_step("x_noise") if noisy else np.zeros((*e.valid.shape, 2))
        return noise.astype(np.float32)

    return draws


def _physics_family(prefix: str, noisy: bool = False) -> Family:
    return Family(prefix, _physics_hidden(noisy), _physics_draws(noisy), physics=True, tolerance=1e-5)


def on_the_edge(physics: np.ndarray, tolerance: float) -> np.ndarray:
    """Mark where a CartPole is within ``tolerance`` of a limit, so that rounding may decide its end."""
    if physics.shape[-1] != 4:
        return np.zeros(physics.shape[:-1], bool)
    beyond = np.abs(physics[..., [0, 2]]) - np.array([X_LIMIT, ANGLE_LIMIT])
    near: np.ndarray = (np.abs(beyond) <= tolerance).any(-1)
    return near


def _suits(env: OwnEnvironment) -> tuple[int, ...]:
    return (4,)


FAMILIES: dict[str, Family] = {
    "autoencode": _deck_family("Autoencode", "h_dealt_suit", lambda env: (2, 4)),
    "battleship": Family(
        "Battleship", _packed_board("h_board"), _prepared("next_fleet"), codes=lambda env: (2,)
    ),
    "concentration": Family(
        "Concentration",
        hidden=lambda env, e: e.per_episode("h_cards").astype(np.int8),
        draws=lambda env, e: np.zeros(e.valid.shape, np.int32),
        codes=lambda env: (env.num_classes + 1,) * env.num_cards,
    ),
    "count_recall": Family(
        "CountRecall", _count_recall_hidden, _count_recall_draws, codes=lambda env: (env.num_classes,) * 2
    ),
    "higher_lower": _deck_family("HigherLower", "h_dealt_rank", lambda env: (13,)),
    "labyrinth_escape": Family(
        "LabyrinthEscape", _labyrinth_hidden, _prepared("layout.next_maze"), codes=lambda env: (5,) * 10
    ),
    "labyrinth_explore": Family(
        "LabyrinthExplore", _labyrinth_hidden, _prepared("layout.next_maze"), codes=lambda env: (5,) * 10
    ),
    "memory_chain": MemoryChainFamily(
        "MemoryChain-bsuite",
        hidden=lambda env, e: tuple(e.per_episode(f).astype(np.int32) for f in ("h_context", "h_query")),
        draws=lambda env, e: None,
    ),
    "minesweeper": Family(
        "MineSweeper",
        _packed_board("h_mines"),
        draws=lambda env, e: None,
        codes=lambda env: (env.num_clues,),
    ),
    "multiarmed_bandit": Family(
        "MultiarmedBandit",
        hidden=lambda env, e: e.per_episode("h_bandits").astype(np.float32),
        draws=_bandit_draws,
        codes=lambda env: (2,),
    ),
    "noisy_position_only_cartpole": _physics_family("NoisyPositionOnlyCartPole", noisy=True),
    "noisy_position_only_pendulum": _physics_family("NoisyPositionOnlyPendulum", noisy=True),
    "position_only_cartpole": _physics_family("PositionOnlyCartPole"),
    "position_only_pendulum": _physics_family("PositionOnlyPendulum"),
    "repeat_first": _deck_family("RepeatFirst", "h_dealt_suit", _suits),
    "repeat_previous": _deck_family("RepeatPrevious", "h_dealt_suit", _suits),
    "velocity_only_cartpole": _physics_family("VelocityOnlyCartPole"),
}
"""Families by the name of their file."""
