"""CountRecall: say how many cards of the queried class have been dealt so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct

from s5_envs import spaces
from s5_envs.base import EnvParams, EnvState
from s5_envs.popgym.cards import CLASSES, check_deck_type, draw_card, remove_card
from s5_envs.popgym.deck_game import DeckGame


@struct.dataclass
class State(EnvState):
    """CountRecall between two steps."""

    deck: jax.Array  # (classes,) int32, cards left of each class in the deck that is counted
    queries: jax.Array  # (classes,) int32, cards left of each class in the deck that asks
    value: jax.Array  # () int32, class of the card on show
    query: jax.Array  # () int32, class asked for


@dataclass(frozen=True)
class CountRecall(DeckGame[State, tuple[jax.Array, jax.Array]]):
    """Two decks are dealt in step: one card to be counted, one that asks how many of its class came by.

    Observation: ``(2 * classes,)`` float32, the card on show one-hot, then the query one-hot.
    Action: a count, ``Discrete(cards / classes + 1)``; it is right when it equals the number of cards of the
    queried class among all shown so far, the one on show included. Reward: +-1 / (cards - 1).
    The episode terminates when the decks are dealt out.

    Args:
        num_decks: decks of 52 cards.
        deck_type: what tells cards apart: ``"colors"`` (2), ``"suits"`` (4) or ``"ranks"`` (13).
    """

    deck_type: Literal["colors", "suits", "ranks"] = "colors"

    draw_words = 2

    def __post_init__(self) -> None:
        """Check the configuration."""
        super().__post_init__()
        check_deck_type(self.name, self.deck_type)

    @property
    def num_classes(self) -> int:
        """How many classes of cards there are."""
        return CLASSES[self.deck_type]

    @property
    def deal_words(self) -> int:
        """One for the card, one for the query."""
        return 2

    @property
    def reward_range(self) -> tuple[float, float]:
        """A wrong and a right answer."""
        return -1.0 / self.episode_length, 1.0 / self.episode_length

    def deal(self, words: jax.Array, params: EnvParams) -> tuple[jax.Array, jax.Array]:
        """Draw the first card and the first query."""
        deck = self.fresh_deck()
        return draw_card(words[0], deck), draw_card(words[1], deck)

    def start(self, hidden: tuple[jax.Array, jax.Array], params: EnvParams) -> State:
        """Show the first card and query, the classes in ``hidden``."""
        value, query = hidden
        deck = self.fresh_deck()
        return State(
            time=jnp.int32(0),
            deck=remove_card(deck, value),
            queries=remove_card(deck, query),
            value=value,
            query=query,
        )

    def draw(self, words: jax.Array, state: State, params: EnvParams) -> tuple[jax.Array, jax.Array]:
        """Draw the next card and the next query."""
        return draw_card(words[0], state.deck), draw_card(words[1], state.queries)

    def transition(
        self, state: State, action: jax.Array, draw: tuple[jax.Array, jax.Array], params: EnvParams
    ) -> tuple[State, jax.Array, jax.Array]:
        """Judge the count, then show the next card and query."""
        asked = jnp.arange(self.num_classes) == state.query
        count = jnp.where(asked, self.fresh_deck() - state.deck, 0).sum()
        wrong, right = self.reward_range
        reward = jnp.where(action == count, right, wrong)
        value, query = draw
        state = State(
            time=state.time + 1,
            deck=remove_card(state.deck, value),
            queries=remove_card(state.queries, query),
            value=value,
            query=query,
        )
        return state, reward, state.time == self.episode_length

    def get_obs(
        self, state: State, params: EnvParams | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Return card and query, one-hot."""
        return jnp.concatenate([spaces.one_hot(c, self.num_classes) for c in (state.value, state.query)])

    def observation_space(self, params: EnvParams | None = None) -> spaces.Box:
        """Return the space of two one-hot classes."""
        return spaces.Box(0.0, 1.0, (2 * self.num_classes,))

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """Return the counts that can occur."""
        return spaces.Discrete(self.num_cards // self.num_classes + 1)
