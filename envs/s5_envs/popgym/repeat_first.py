"""RepeatFirst: name the suit of the episode's first card at every step."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from s5_envs import spaces
from s5_envs.base import EnvParams, EnvState
from s5_envs.popgym.cards import NUM_SUITS, remove_card
from s5_envs.popgym.deck_game import OneCardGame


@struct.dataclass
class State(EnvState):
    """RepeatFirst between two steps."""

    deck: jax.Array  # (4,) int32, cards left of each suit
    first: jax.Array  # () int32, the first card's suit: what every action should be
    card: jax.Array  # () int32, the suit on show


@dataclass(frozen=True)
class RepeatFirst(OneCardGame[State]):
    """Cards are dealt one by one; the action names the suit of the first.

    Observation: ``(4,)`` float32, the suit on show, one-hot. Action: a suit, ``Discrete(4)``.
    Reward: +-1 / (cards - 1) at every step. The episode terminates when the deck is dealt out.

    Args:
        num_decks: decks of 52 cards.
    """

    @property
    def reward_range(self) -> tuple[float, float]:
        """A wrong and a right answer."""
        return -1.0 / self.episode_length, 1.0 / self.episode_length

    def start(self, hidden: jax.Array, params: EnvParams) -> State:
        """Show the first card, the suit ``hidden``."""
        deck = remove_card(self.fresh_deck(), hidden)
        return State(time=jnp.int32(0), deck=deck, first=hidden, card=hidden)

    def transition(
        self, state: State, action: jax.Array, draw: jax.Array, params: EnvParams
    ) -> tuple[State, jax.Array, jax.Array]:
        """Judge the answer, then show the next card."""
        wrong, right = self.reward_range
        reward = jnp.where(action == state.first, right, wrong)
        state = State(time=state.time + 1, deck=remove_card(state.deck, draw), first=state.first, card=draw)
        return state, reward, state.time == self.episode_length

    def get_obs(
        self, state: State, params: EnvParams | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Return the suit on show, one-hot."""
        return spaces.one_hot(state.card, NUM_SUITS)

    def observation_space(self, params: EnvParams | None = None) -> spaces.Box:
        """Return the space of a one-hot suit."""
        return spaces.Box(0.0, 1.0, (NUM_SUITS,))

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """Return the suits."""
        return spaces.Discrete(NUM_SUITS)
