"""The CartPoles' physics, that of gymnasium's CartPole-v1 (Barto, Sutton & Anderson 1983)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from s5_envs import spaces
from s5_envs.base import EnvParams
from s5_envs.draws import uniform
from s5_envs.popgym.physics import Physics
from s5_envs.popgym.physics import State as State

GRAVITY = 9.8  # m/s^2
CART_MASS, POLE_MASS = 1.0, 0.1  # kg
HALF_LENGTH = 0.5  # m, half the pole
FORCE = 10.0  # N
TIME_STEP = 0.02  # s
X_LIMIT = 2.4  # m
ANGLE_LIMIT = 12 * 2 * math.pi / 360  # rad
START_RANGE = 0.05  # every component begins in [-0.05, 0.05)
POSITION_HIGH = np.array([2 * X_LIMIT, 2 * ANGLE_LIMIT], np.float32)  # bounds of a shown position


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
class CartPole(Physics):
    """The base of the three CartPole families, which differ in what they show.

    Action: ``Discrete(2)``, push left or right. Reward: 1 / max_episode_length at every step, the failing one
    included. The episode terminates when the cart leaves [-2.4, 2.4] m or the pole leans more than 12
    degrees, and is truncated after max_episode_length steps; both can come at once.

    Physics: (4,) float32: x [m], velocity [m/s], angle from upright [rad], its velocity [rad/s].

    Args:
        max_episode_length: the time limit in steps.
    """

    physics_words = 4

    @property
    def reward_range(self) -> tuple[float, float]:
        """The same at every step."""
        return 1.0 / self.max_episode_length, 1.0 / self.max_episode_length

    def initial_physics(self, words: jax.Array) -> jax.Array:
        """Return ``(4,)`` float32, every component near 0."""
        return START_RANGE * (2.0 * uniform(words) - 1.0)

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
