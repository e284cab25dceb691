"""The base of the pendulums: physics and noise (gymnasium's Pendulum-v1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from s5_envs import spaces
from s5_envs.base import EnvParams
from s5_envs.draws import uniform
from s5_envs.popgym.physics import Physics
from s5_envs.popgym.physics import State as State

GRAVITY = 10.0  # m/s^2
MASS = 1.0  # kg
LENGTH = 1.0  # m
TIME_STEP = 0.05  # s
MAX_SPEED = 8.0  # rad/s
MAX_TORQUE = 2.0  # N m
HIGHEST_COST = 16.2736044  # the reference's bound of a step's cost: pi^2 + 0.1 * 8^2 + 0.001 * 2^2


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
    total: jax.Array = distance**2 + 0.1 * speed**2 + 0.001 * torque**2
    return total


@dataclass(frozen=True)
class Pendulum(Physics):
    """The base of the two pendulum families.

    Action: a torque [N m], ``Box(-2, 2, (1,))``, clipped. Reward: 1 - 2 cost / 16.27 per step, divided by
    max_episode_length, so that a return lies in [-1, 1]. The episode is truncated, never terminated.

    Physics: (2,) float32: angle from upright [rad], not wrapped, and its velocity [rad/s].

    Args:
        max_episode_length: steps in an episode.
    """

    physics_words = 2

    @property
    def reward_range(self) -> tuple[float, float]:
        """The highest cost and none."""
        return -1.0 / self.max_episode_length, 1.0 / self.max_episode_length

    def initial_physics(self, words: jax.Array) -> jax.Array:
        """Return ``(2,)`` float32: any angle, a speed in [-1, 1) rad/s."""
        return (2.0 * uniform(words) - 1.0) * jnp.array([math.pi, 1.0], jnp.float32)

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
