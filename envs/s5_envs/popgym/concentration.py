"""Concentration: turn over two cards at a time and find the pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct

from s5_envs import spaces
from s5_envs.base import Environment, EnvParams, EnvState
from s5_envs.popgym.cards import (
    CLASSES,
    DECK_SIZE,
    check_deck_type,
    check_num_decks,
    draw_card,
    fresh_deck,
    remove_card,
)

UNDRAWN = -1  # a card that nobody has seen yet: its class is drawn when it is first turned over
NOBODY = -1  # no position


@struct.dataclass
class State(EnvState):
    """Concentration between two steps."""

    deck: jax.Array  # (classes,) int32, cards of each class among those not drawn yet
    cards: jax.Array  # (cards,) int8, class of the card at each position, -1 where not drawn yet
    paired: jax.Array  # (cards,) bool, found and left face up
    first: jax.Array  # () int32, position turned over and waiting for a second card, -1 if none
    shown: jax.Array  # (2,) int32, positions that the last step left on show besides the pairs, -1 if none


@dataclass(frozen=True)
class Concentration(Environment[State, jax.Array, jax.Array]):
    """All cards lie face down; an action turns one over; two alike stay up, others are turned back.

    Observation: ``(cards * (classes + 1),)`` float32, position by position, one-hot: the class, or
    ``classes`` for face down. The second card of a pair is seen before it is turned back.
    Action: a position, ``Discrete(cards)``. Reward: 2 / cards for a pair; -2 / limit for two different cards
    or the same card twice; turning over a card that lies face up costs 1 / limit for every card in play, and
    takes it and its partner back. The episode terminates when all pairs are found and is truncated at the
    limit of ``ceil(2n - n / (2n - 1))`` steps for n cards; both can come at once.

    Args:
        num_decks: decks of 52 cards.
        deck_type: what must match: ``"colors"`` (2) or ``"ranks"`` (13).
    """

    num_decks: int = 1
    deck_type: Literal["colors", "ranks"] = "ranks"

    obs_requires_prev_action = True

    def __post_init__(self) -> None:
        """Check the configuration."""
        check_num_decks(self.name, self.num_decks)
        check_deck_type(self.name, self.deck_type, ("colors", "ranks"))

    @property
    def num_cards(self) -> int:
        """Cards on the table."""
        return DECK_SIZE * self.num_decks

    @property
    def num_classes(self) -> int:
        """How many classes of cards there are."""
        return CLASSES[self.deck_type]

    @property
    def episode_length(self) -> int:
        """The reference's estimate of a perfect player's needs, doubled."""
        n = self.num_cards
        return math.ceil(2 * n - n / (2 * n - 1))

    @property
    def reward_range(self) -> tuple[float, float]:
        """Two cards turned in vain, and a pair."""
        return -2.0 / self.episode_length, 2.0 / self.num_cards

    @property
    def deal_words(self) -> int:
        """None: cards are drawn when they are turned over."""
        return 0

    def deal(self, words: jax.Array, params: EnvParams) -> jax.Array:
        """Lay out cards of no class yet: ``(cards,)`` int8 of -1."""
        return jnp.full((self.num_cards,), UNDRAWN, jnp.int8)

    def start(self, hidden: jax.Array, params: EnvParams) -> State:
        """Lay out the cards ``hidden``: ``(cards,)`` int8, a class each, or -1 for all: to be drawn."""
        drawn = (hidden[:, None] == jnp.arange(self.num_classes)).sum(0, dtype=jnp.int32)
        return State(
            time=jnp.int32(0),
            deck=fresh_deck(self.num_decks, self.num_classes) - drawn,
            cards=hidden,
            paired=jnp.zeros((self.num_cards,), bool),
            first=jnp.int32(NOBODY),
            shown=jnp.full((2,), NOBODY, jnp.int32),
        )

    def draw(self, words: jax.Array, state: State, params: EnvParams) -> jax.Array:
        """Draw the class of the card to be turned over, in case nobody has seen it yet."""
        return draw_card(words[0], state.deck)

    def transition(
        self, state: State, action: jax.Array, draw: jax.Array, params: EnvParams
    ) -> tuple[State, jax.Array, jax.Array]:
        """Turn a card over and, if it is the second, judge the two."""
        positions = jnp.arange(self.num_cards)
        here, at_first = positions == action, positions == state.first
        seen = jnp.where(here, state.cards, 0).sum(dtype=jnp.int32)
        unseen = seen == UNDRAWN
        card = jnp.where(unseen, draw, seen)
        cards = jnp.where(here & unseen, draw.astype(jnp.int8), state.cards)

        face_up = (here & state.paired).any()
        second = state.first != NOBODY
        first_card = jnp.where(at_first, state.cards, 0).sum(dtype=jnp.int32)
        pair = second & ~face_up & (first_card == card) & (state.first != action)
        paired = state.paired | (pair & (here | at_first))

        in_play = 1 + second.astype(jnp.int32)
        wasted = face_up | (second & ~pair)
        reward = jnp.where(wasted, -in_play / self.episode_length, 0.0)
        reward = jnp.where(pair, 2.0 / self.num_cards, reward)

        action = jnp.asarray(action, jnp.int32)
        state = State(
            time=state.time + 1,
            deck=jnp.where(unseen, remove_card(state.deck, draw), state.deck),
            cards=cards,
            paired=paired,
            first=jnp.where(second | face_up, NOBODY, action),
            shown=jnp.stack([state.first, action]),
        )
        return state, reward.astype(jnp.float32), paired.all()

    def get_obs(
        self, state: State, params: EnvParams | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Return what lies face up, one-hot by position."""
        positions = jnp.arange(self.num_cards)
        visible = state.paired | (positions == state.shown[0]) | (positions == state.shown[1])
        codes = jnp.where(visible, state.cards, jnp.int8(self.num_classes))
        width = self.num_classes + 1
        # Scattered: as comparisons, XLA would work out a position's code anew for each of its classes.
        ones = positions * width + codes
        obs = jnp.zeros((self.num_cards * width,), jnp.float32)
        return obs.at[ones].set(1.0, indices_are_sorted=True, unique_indices=True)

    def action_mask(self, state: State, params: EnvParams) -> jax.Array:
        """Return the cards that lie face down and are not the first of two: ``(cards,)`` bool."""
        return ~state.paired & (jnp.arange(self.num_cards) != state.first)

    def observation_space(self, params: EnvParams | None = None) -> spaces.Box:
        """Return the space of one-hot cards."""
        return spaces.Box(0.0, 1.0, (self.num_cards * (self.num_classes + 1),))

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """Return the positions."""
        return spaces.Discrete(self.num_cards)
