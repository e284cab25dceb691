"""What the games of cards that are dealt one by one share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from s5_envs.base import Environment, EnvParams
from s5_envs.popgym.cards import DECK_SIZE, NUM_SUITS, check_num_decks, draw_card, fresh_deck


@dataclass(frozen=True)
class DeckGame(Environment):
    """One card a step from one shuffled deck; the episode terminates with the last card.

    A subclass's state has a field ``deck``: ``(num_classes,)`` int32, cards left of each class.

    Args:
        num_decks: decks of 52 cards shuffled together.
    """

    num_decks: int = 1

    num_classes: ClassVar[int] = NUM_SUITS

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

    def deal(self, words: jax.Array, params: EnvParams) -> Any:
        """Draw the first card: () int32."""
        return draw_card(words[0], self.fresh_deck())

    def draw(self, words: jax.Array, state: Any, params: EnvParams) -> Any:
        """Draw the next card: () int32."""
        return draw_card(words[0], state.deck)

    def is_truncated(self, state: Any, params: EnvParams) -> jax.Array:
        """Only where ``params`` sets a limit below the deck: a deck dealt out terminates."""
        return (state.time >= params.max_steps_in_episode) & (state.time < self.episode_length)
