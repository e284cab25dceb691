"""RepeatPrevious: name the suit of the card that was dealt k - 1 cards before the one on show."""

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
    """RepeatPrevious between two steps."""

    deck: jax.Array  # (4,) int32, cards left of each suit
    cards: jax.Array  # (ceil(k / 16),) uint32, the last k suits dealt, newest on top (s5_envs.popgym.packed)


@dataclass(frozen=True)
class RepeatPrevious(OneCardGame[State]):
    """Cards are dealt one by one; the action names the suit seen k - 1 cards ago.

    Observation: ``(4,)`` float32, the suit on show, one-hot. Action: a suit, ``Discrete(4)``.
    Reward: 0 while fewer than k cards have been dealt, then +-1 / (cards - k), so that perfect play earns 1.
    The episode terminates when the deck is dealt out.

    Args:
        num_decks: decks of 52 cards.
        k: the lag, counted as the reference counts it: k = 1 names the card on show itself.
    """

    k: int = 4

    def __post_init__(self) -> None:
        """Check the configuration."""
        super().__post_init__()
        if not 1 <= self.k < self.num_cards:
            raise ValueError(f"RepeatPrevious: k must be from 1 to {self.num_cards - 1}, got {self.k}")

    @property
    def reward_range(self) -> tuple[float, float]:
        """A wrong and a right answer."""
        return -self.reward_scale, self.reward_scale

    @property
    def reward_scale(self) -> float:
        """The reward of a right answer and the cost of a wrong one."""
        return 1.0 / (self.num_cards - self.k)

    def start(self, hidden: jax.Array, params: EnvParams) -> State:
        """Show the first card, the suit ``hidden``."""
        deck = remove_card(self.fresh_deck(), hidden)
        return State(time=jnp.int32(0), deck=deck, cards=packed.push(packed.empty(self.k), hidden))

    def transition(
        self, state: State, action: jax.Array, draw: jax.Array, params: EnvParams
    ) -> tuple[State, jax.Array, jax.Array]:
        """Judge the answer, then show the next card."""
        asked = state.time + 1 >= self.k
        right = action == packed.peek(state.cards, self.k - 1)
        reward = jnp.where(asked, jnp.where(right, self.reward_scale, -self.reward_scale), 0.0)
        state = State(
            time=state.time + 1,
            deck=remove_card(state.deck, draw),
            cards=packed.push(state.cards, draw),
        )
        return state, reward, state.time == self.episode_length

    def get_obs(
        self, state: State, params: EnvParams | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Return the suit on show, one-hot."""
        return spaces.one_hot(packed.peek(state.cards), NUM_SUITS)

    def observation_space(self, params: EnvParams | None = None) -> spaces.Box:
        """Return the space of a one-hot suit."""
        return spaces.Box(0.0, 1.0, (NUM_SUITS,))

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """Return the suits."""
        return spaces.Discrete(NUM_SUITS)
