"""What the pendulums share: the physics and noise (gymnasium's Pendulum-v1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from s5_envs import spaces
from s5_envs.base import Environment, EnvParams, EnvState
from s5_envs.draws import normal, uniform

GRAVITY = 10.0  # m/s^2
MASS = 1.0  # kg
LENGTH = 1.0  # m
TIME_STEP = 0.05  # s
MAX_SPEED = 8.0  # rad/s
MAX_TORQUE = 2.0  # N m
HIGHEST_COST = 16.2736044  # the reference's bound of a step's cost: pi^2 + 0.1 * 8^2 + 0.001 * 2^2


@struct.dataclass
class State(EnvState):
    """A pendulum between two steps."""

    physics: jax.Array  # (2,) float32: angle from upright [rad], not wrapped, and its velocity [rad/s]
    noise: jax.Array  # (2,) float32, added to what is shown; zeros without noise


def euler_step(physics: jax.Array, torque: jax.Array) -> jax.Array:
    """Advance ``(2,)`` physics by one time step of semi-implicit Euler."""
    angle, speed = physics
    acceleration = 3 * GRAVITY / (2 * LENGTH) * jnp.sin(angle) + 3.0 / (MASS * LENGTH**2) * torque
    speed = jnp.clip(speed + acceleration * TIME_STEP, -MAX_SPEED, MAX_SPEED)
    return jnp.stack([angle + speed * TIME_STEP, speed])


def cost(physics: jax.Array, torque: jax.Array) -> jax.Array:
    """Return what a step from ``physics`` costs: distance from upright, speed and torque, squared."""
    angle, speed = physics
    distance = (angle + math.pi) % (2 * math.pi) - math.pi
    return distance**2 + 0.1 * speed**2 + 0.001 * torque**2


@dataclass(frozen=True)
class Pendulum(Environment):
    """The base of the two pendulum families.

    Action: a torque [N m], ``Box(-2, 2, (1,))``, clipped. Reward: 1 - 2 cost / 16.27 per step, divided by
    max_episode_length, so that a return lies in [-1, 1]. The episode is truncated, never terminated.

    Args:
        max_episode_length: steps in an episode.
    """

    max_episode_length: int = 200

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
    def reward_range(self) -> tuple[float, float]:
        """The highest cost and none."""
        return -1.0 / self.max_episode_length, 1.0 / self.max_episode_length

    @property
    def deal_words(self) -> int:
        """Two for the physics, and the first observation's noise."""
        return 2 + self.draw_words

    def deal(self, words: jax.Array, params: EnvParams) -> tuple[jax.Array, jax.Array]:
        """Draw the initial physics, ``(2,)`` float32, and the first observation's noise, ``(2,)`` float32."""
        physics = (2.0 * uniform(words[:2]) - 1.0) * jnp.array([math.pi, 1.0], jnp.float32)
        return physics, self._noise(words[2:])

    def _noise(self, words: jax.Array) -> jax.Array:
        return self.noise_sigma * normal(words) if self.draw_words else jnp.zeros((2,), jnp.float32)

    def start(self, hidden: tuple[jax.Array, jax.Array], params: EnvParams) -> State:
        """Begin with the physics and the noise in ``hidden``."""
        physics, noise = hidden
        return State(time=jnp.int32(0), physics=physics, noise=noise)

    def draw(self, words: jax.Array, state: State, params: EnvParams) -> jax.Array:
        """Draw the noise of the next observation, ``(2,)`` float32."""
        return self._noise(words)

    def transition(
        self, state: State, action: jax.Array, draw: jax.Array, params: EnvParams
    ) -> tuple[State, jax.Array, jax.Array]:
        """Apply the torque for one time step."""
        torque = jnp.clip(jnp.asarray(action).reshape(()), -MAX_TORQUE, MAX_TORQUE)
        reward = (1.0 - cost(state.physics, torque) / (HIGHEST_COST / 2)) / self.max_episode_length
        state = State(time=state.time + 1, physics=euler_step(state.physics, torque), noise=draw)
        return state, reward.astype(jnp.float32), jnp.array(False)

    def get_obs(
        self, state: State, params: EnvParams | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Return cosine and sine of the angle, ``(2,)`` float32, noisy and clipped where noise is on."""
        angle = state.physics[0]
        shown = jnp.stack([jnp.cos(angle), jnp.sin(angle)]).astype(jnp.float32)
        return jnp.clip(shown + state.noise, -1.0, 1.0) if self.draw_words else shown

    def observation_space(self, params: EnvParams | None = None) -> spaces.Box:
        """Return the space of cosine and sine."""
        return spaces.Box(-1.0, 1.0, (2,))

    def action_space(self, params: EnvParams | None = None) -> spaces.Box:
        """Return the torques."""
        return spaces.Box(-MAX_TORQUE, MAX_TORQUE, (1,))
