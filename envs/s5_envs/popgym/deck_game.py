"""The base of games whose cards are dealt one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import jax

from s5_envs.base import Environment, EnvParams
from s5_envs.popgym.cards import DECK_SIZE, NUM_SUITS, check_num_decks, draw_card, fresh_deck


class DeckState(Protocol):
    """Fields that every game's state has."""

    @property
    def time(self) -> jax.Array:
        """() int32, steps taken in this episode."""

    @property
    def deck(self) -> jax.Array:
        """``(num_classes,)`` int32, cards left of each class."""


StateT = TypeVar("StateT", bound=DeckState)
CardT = TypeVar("CardT")


@dataclass(frozen=True)
class DeckGame(Environment[StateT, CardT, CardT]):
    """A deck is dealt step by step; the episode terminates with the last card.

    Args:
        num_decks: decks of 52 cards shuffled together.
    """

    num_decks: int = 1

    @property
    def num_classes(self) -> int:
        """How many classes of cards there are."""
        return NUM_SUITS

    def __post_init__(self) -> None:
        """Check the configuration."""
        check_num_decks(self.name, self.num_decks)

    @property
    def num_cards(self) -> int:
        """Cards in the deck."""
        return DECK_SIZE * self.num_decks

    @property
    def episode_length(self) -> int:
        """One step for every card but the first, which the reset shows."""
        return self.num_cards - 1

    def fresh_deck(self) -> jax.Array:
        """Return the full deck, ``(num_classes,)`` int32."""
        return fresh_deck(self.num_decks, self.num_classes)

    def is_truncated(self, state: StateT, params: EnvParams) -> jax.Array:
        """Tell whether a limit of ``params`` below the deck is reached: a deck dealt out terminates."""
        return (state.time >= params.max_steps_in_episode) & (state.time < self.episode_length)


@dataclass(frozen=True)
class OneCardGame(DeckGame[StateT, jax.Array]):
    """One card a step.

    Args:
        num_decks: decks of 52 cards shuffled together.
    """

    def deal(self, words: jax.Array, params: EnvParams) -> jax.Array:
        """Draw the first card: () int32."""
        return draw_card(words[0], self.fresh_deck())

    def draw(self, words: jax.Array, state: StateT, params: EnvParams) -> jax.Array:
        """Draw the next card: () int32."""
        return draw_card(words[0], state.deck)
