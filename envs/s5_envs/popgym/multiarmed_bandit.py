"""MultiarmedBandit: find the arm that pays best within one episode."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from s5_envs import spaces
from s5_envs.base import Environment, EnvParams, EnvState
from s5_envs.draws import uniform

UNDRAWN = -1.0  # an arm that nobody has pulled yet: its probability is drawn with its first pull


@struct.dataclass
class State(EnvState):
    """MultiarmedBandit between two steps."""

    bandits: jax.Array  # (num_bandits,) float32, probability of a payout, -1 where not drawn yet
    paid: jax.Array  # () bool, the last pull paid


@dataclass(frozen=True)
class MultiarmedBandit(Environment[State, jax.Array, tuple[jax.Array, jax.Array]]):
    """Each arm pays with its own probability, drawn uniformly for every episode.

    Observation: ``(2,)`` float32, nothing = 0 or payout = 1, one-hot; nothing at first. Action: an arm,
    ``Discrete(num_bandits)``. Reward: +-1 / episode_length. The episode is truncated, never terminated.

    Args:
        num_bandits: arms.
        max_episode_length: steps in an episode.
    """

    num_bandits: int = 10
    max_episode_length: int = 200

    obs_requires_prev_action = True
    draw_words = 2

    def __post_init__(self) -> None:
        """Check the configuration."""
        for name in ("num_bandits", "max_episode_length"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"MultiarmedBandit: {name} must be a positive integer, got {value!r}")

    @property
    def episode_length(self) -> int:
        """Steps in an episode."""
        return self.max_episode_length

    @property
    def reward_range(self) -> tuple[float, float]:
        """Nothing and a payout."""
        return -1.0 / self.episode_length, 1.0 / self.episode_length

    @property
    def deal_words(self) -> int:
        """None: arms are drawn when they are pulled."""
        return 0

    def deal(self, words: jax.Array, params: EnvParams) -> jax.Array:
        """Set up arms of no probability yet: ``(num_bandits,)`` float32 of -1."""
        return jnp.full((self.num_bandits,), UNDRAWN, jnp.float32)

    def start(self, hidden: jax.Array, params: EnvParams) -> State:
        """Begin with the probabilities ``hidden``: ``(num_bandits,)`` float32, -1 where to be drawn."""
        return State(time=jnp.int32(0), bandits=hidden, paid=jnp.array(False))

    def draw(self, words: jax.Array, state: State, params: EnvParams) -> tuple[jax.Array, jax.Array]:
        """Draw the number that decides the payout, and a probability in case the arm has none yet."""
        return uniform(words[0]), uniform(words[1])

    def transition(
        self, state: State, action: jax.Array, draw: tuple[jax.Array, jax.Array], params: EnvParams
    ) -> tuple[State, jax.Array, jax.Array]:
        """Pull an arm."""
        luck, fresh = draw
        pulled = jnp.arange(self.num_bandits) == action
        bandits = jnp.where(pulled & (state.bandits < 0), fresh, state.bandits)
        paid = luck < jnp.where(pulled, bandits, 0.0).sum()
        nothing, payout = self.reward_range
        state = State(time=state.time + 1, bandits=bandits, paid=paid)
        return state, jnp.where(paid, payout, nothing), jnp.array(False)

    def get_obs(
        self, state: State, params: EnvParams | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Return nothing or payout, one-hot."""
        return spaces.one_hot(state.paid, 2)

    def observation_space(self, params: EnvParams | None = None) -> spaces.Box:
        """Return the space of a one-hot payout."""
        return spaces.Box(0.0, 1.0, (2,))

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """Return the arms."""
        return spaces.Discrete(self.num_bandits)
