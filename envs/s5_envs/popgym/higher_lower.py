"""HigherLower: guess whether the next card ranks higher or lower than the one on show."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from s5_envs import spaces
from s5_envs.base import EnvParams, EnvState
from s5_envs.popgym.cards import NUM_RANKS, remove_card
from s5_envs.popgym.deck_game import OneCardGame

HIGHER = 0


@struct.dataclass
class State(EnvState):
    """HigherLower between two steps."""

    deck: jax.Array  # (13,) int32, cards left of each rank
    rank: jax.Array  # () int32, the rank on show, ace = 0 to king = 12


@dataclass(frozen=True)
class HigherLower(OneCardGame[State]):
    """Cards are dealt one by one; the action guesses how the next one compares.

    Observation: ``(13,)`` float32, the rank on show (ace lowest), one-hot. Action: ``Discrete(2)``, 0 for
    higher, 1 for lower. Reward: +-1 / cards, 0 when the next rank is the same. The episode terminates when
    the deck is dealt out.

    Args:
        num_decks: decks of 52 cards.
    """

    @property
    def num_classes(self) -> int:
        """Ranks."""
        return NUM_RANKS

    @property
    def reward_range(self) -> tuple[float, float]:
        """A wrong and a right guess."""
        return -1.0 / self.num_cards, 1.0 / self.num_cards

    def start(self, hidden: jax.Array, params: EnvParams) -> State:
        """Show the first card, the rank ``hidden``."""
        return State(time=jnp.int32(0), deck=remove_card(self.fresh_deck(), hidden), rank=hidden)

    def transition(
        self, state: State, action: jax.Array, draw: jax.Array, params: EnvParams
    ) -> tuple[State, jax.Array, jax.Array]:
        """Show the next card and judge the guess by it."""
        wrong, right = self.reward_range
        reward = jnp.where((draw > state.rank) == (action == HIGHER), right, wrong)
        reward = jnp.where(draw == state.rank, 0.0, reward)
        state = State(time=state.time + 1, deck=remove_card(state.deck, draw), rank=draw)
        return state, reward, state.time == self.episode_length

    def get_obs(
        self, state: State, params: EnvParams | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Return the rank on show, one-hot."""
        return spaces.one_hot(state.rank, NUM_RANKS)

    def observation_space(self, params: EnvParams | None = None) -> spaces.Box:
        """Return the space of a one-hot rank."""
        return spaces.Box(0.0, 1.0, (NUM_RANKS,))

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """Return higher and lower."""
        return spaces.Discrete(2)
