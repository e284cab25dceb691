"""What the CartPoles: the physics of gymnasium's CartPole-v1 (Barto, Sutton & Anderson 1983)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from s5_envs import spaces
from s5_envs.base import Environment, EnvParams, EnvState
from s5_envs.draws import normal, uniform

GRAVITY = 9.8  # m/s^2
CART_MASS, POLE_MASS = 1.0, 0.1  # kg
HALF_LENGTH = 0.5  # m, half the pole
FORCE = 10.0  # N
TIME_STEP = 0.02  # s
X_LIMIT = 2.4  # m
ANGLE_LIMIT = 12 * 2 * math.pi / 360  # rad
START_RANGE = 0.05  # every component begins in [-0.05, 0.05)
POSITION_HIGH = np.array([2 * X_LIMIT, 2 * ANGLE_LIMIT], np.float32)  # bounds of a shown position


@struct.dataclass
class State(EnvState):
    """A CartPole between two steps."""

    physics: jax.Array  # (4,) float32: x [m], velocity [m/s], angle from upright [rad], its velocity [rad/s]
    noise: jax.Array  # (2,) float32, added to what is shown; zeros without noise


def euler_step(physics: jax.Array, action: jax.Array) -> jax.Array:
    """Advance ``(4,)`` physics by one time step: a push left (0) or right (1), explicit Euler."""
    _, x_dot, angle, angle_dot = physics
    force = jnp.where(action == 1, FORCE, -FORCE).astype(physics.dtype)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    total_mass = CART_MASS + POLE_MASS
    mass_length = POLE_MASS * HALF_LENGTH
    push = (force + mass_length * jnp.square(angle_dot) * sin) / total_mass
    angle_acc = (GRAVITY * sin - cos * push) / (
        HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * jnp.square(cos) / total_mass)
    )
    x_acc = push - mass_length * angle_acc * cos / total_mass
    change = jnp.stack([x_dot, x_acc, angle_dot, angle_acc])
    return physics + TIME_STEP * change


@dataclass(frozen=True)
class CartPole(Environment):
    """The base of the three CartPole families, which differ in what they show.

    Action: ``Discrete(2)``, push left or right. Reward: 1 / max_episode_length at every step, the failing one
    included. The episode terminates when the cart leaves [-2.4, 2.4] m or the pole leans more than 12
    degrees, and is truncated after max_episode_length steps; both can come at once.

    Args:
        max_episode_length: the time limit in steps.
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
        """The same at every step."""
        return 1.0 / self.max_episode_length, 1.0 / self.max_episode_length

    @property
    def deal_words(self) -> int:
        """Four for the physics, and the first observation's noise."""
        return 4 + self.draw_words

    def deal(self, words: jax.Array, params: EnvParams) -> tuple[jax.Array, jax.Array]:
        """Draw the initial physics, ``(4,)`` float32, and the first observation's noise, ``(2,)`` float32."""
        physics = START_RANGE * (2.0 * uniform(words[:4]) - 1.0)
        return physics, self._noise(words[4:])

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
        """Push the cart for one time step."""
        physics = euler_step(state.physics, action)
        fallen = (jnp.abs(physics[0]) > X_LIMIT) | (jnp.abs(physics[2]) > ANGLE_LIMIT)
        reward = jnp.full((), 1.0 / self.max_episode_length, jnp.float32)
        return State(time=state.time + 1, physics=physics, noise=draw), reward, fallen

    def get_obs(
        self, state: State, params: EnvParams | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Return position and angle, ``(2,)`` float32, with noise and then clipped where there is any."""
        shown = state.physics[jnp.array([0, 2])].astype(jnp.float32)
        if self.draw_words:
            shown = jnp.clip(shown + state.noise, -POSITION_HIGH, POSITION_HIGH)
        return shown

    def observation_space(self, params: EnvParams | None = None) -> spaces.Box:
        """Return the space of positions and angles: twice the limits."""
        return spaces.Box(-POSITION_HIGH, POSITION_HIGH, (2,))

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """Return left and right."""
        return spaces.Discrete(2)
