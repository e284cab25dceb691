"""Autoencode: watch a whole deck, then name its suits in reverse order."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from s5_envs import spaces
from s5_envs.base import EnvParams, EnvState
from s5_envs.popgym import packed
from s5_envs.popgym.cards import NUM_SUITS, remove_card
from s5_envs.popgym.deck_game import OneCardGame


@struct.dataclass
class State(EnvState):
    """Autoencode between two steps."""

    deck: jax.Array  # (4,) int32, cards left of each suit
    cards: jax.Array  # (ceil(cards / 16),) uint32, suits seen and not yet recited, newest on top (packed)


@dataclass(frozen=True)
class Autoencode(OneCardGame[State]):
    """A deck is shown card by card, then the action names the suits backwards, last card first.

    Observation: ``(6,)`` float32, the mode one-hot (PLAY = 0, WATCH = 1), then the suit on show one-hot.
    The last card is shown together with PLAY; while reciting, the suit on show is always 0.
    Action: a suit, ``Discrete(4)``. Reward: 0 while watching, then +-1 / cards.
    The episode terminates when every card has been recited.

    Args:
        num_decks: decks of 52 cards.
    """

    @property
    def episode_length(self) -> int:
        """Watching every card but the first, which the reset shows, then reciting all."""
        return 2 * self.num_cards - 1

    @property
    def reward_range(self) -> tuple[float, float]:
        """A wrong and a right answer."""
        return -1.0 / self.num_cards, 1.0 / self.num_cards

    def start(self, hidden: jax.Array, params: EnvParams) -> State:
        """Show the first card, the suit ``hidden``."""
        deck = remove_card(self.fresh_deck(), hidden)
        return State(time=jnp.int32(0), deck=deck, cards=packed.push(packed.empty(self.num_cards), hidden))

    def transition(
        self, state: State, action: jax.Array, draw: jax.Array, params: EnvParams
    ) -> tuple[State, jax.Array, jax.Array]:
        """Show the next card, or judge the answer and go one card back."""
        watching = state.time < self.num_cards - 1
        wrong, right = self.reward_range
        reward = jnp.where(action == packed.peek(state.cards), right, wrong)
        state = State(
            time=state.time + 1,
            deck=jnp.where(watching, remove_card(state.deck, draw), state.deck),
            cards=jnp.where(watching, packed.push(state.cards, draw), packed.pop(state.cards)),
        )
        return state, jnp.where(watching, 0.0, reward), state.time == self.episode_length

    def get_obs(
        self, state: State, params: EnvParams | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Return mode and suit, one-hot."""
        watching = state.time < self.num_cards - 1
        shown = jnp.where(state.time < self.num_cards, packed.peek(state.cards), 0)
        return jnp.concatenate([spaces.one_hot(watching, 2), spaces.one_hot(shown, NUM_SUITS)])

    def observation_space(self, params: EnvParams | None = None) -> spaces.Box:
        """Return the space of a one-hot mode and a one-hot suit."""
        return spaces.Box(0.0, 1.0, (2 + NUM_SUITS,))

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """Return the suits."""
        return spaces.Discrete(NUM_SUITS)
