"""The base of CartPoles and pendulums: physics of floats, a time limit, noise on what is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from s5_envs.base import Environment, EnvParams, EnvState
from s5_envs.draws import normal


@struct.dataclass
class State(EnvState):
    """A physical system between two steps."""

    physics: jax.Array  # float32, see the family: (4,) of a CartPole, (2,) of a pendulum
    noise: jax.Array  # (2,) float32, added to what is shown; zeros without noise


@dataclass(frozen=True)
class Physics(Environment[State, tuple[jax.Array, jax.Array], jax.Array]):
    """The base of the families with physics.

    Args:
        max_episode_length: the time limit in steps.
    """

    max_episode_length: int = 200

    physics_words: ClassVar[int]
    """Random words that ``initial_physics`` takes."""
    draw_words = 0
    noise_sigma = 0.0

    def __post_init__(self) -> None:
        """Check the configuration."""
        if not isinstance(self.max_episode_length, int) or self.max_episode_length < 1:
            raise ValueError(
                f"{self.name}: max_episode_length must be a positive integer, got {self.max_episode_length!r}"
            )
        if not self.noise_sigma >= 0:
            raise ValueError(f"{self.name}: noise_sigma must not be negative, got {self.noise_sigma!r}")

    @property
    def episode_length(self) -> int:
        """The time limit."""
        return self.max_episode_length

    @property
    def deal_words(self) -> int:
        """For the physics, and for the first observation's noise."""
        return self.physics_words + self.draw_words

    def initial_physics(self, words: jax.Array) -> jax.Array:
        """Draw the physics that an episode begins with, from ``physics_words`` words."""
        raise NotImplementedError

    def deal(self, words: jax.Array, params: EnvParams) -> tuple[jax.Array, jax.Array]:
        """Draw the initial physics, and the first observation's noise, ``(2,)`` float32."""
        return self.initial_physics(words[: self.physics_words]), self._noise(words[self.physics_words :])

    def _noise(self, words: jax.Array) -> jax.Array:
        return self.noise_sigma * normal(words) if self.draw_words else jnp.zeros((2,), jnp.float32)

    def start(self, hidden: tuple[jax.Array, jax.Array], params: EnvParams) -> State:
        """Begin with the physics and the noise in ``hidden``."""
        physics, noise = hidden
        return State(time=jnp.int32(0), physics=physics, noise=noise)

    def draw(self, words: jax.Array, state: State, params: EnvParams) -> jax.Array:
        """Draw the noise of the next observation, ``(2,)`` float32."""
        return self._noise(words)
