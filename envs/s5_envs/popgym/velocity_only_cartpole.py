"""VelocityOnlyCartPole: balance the pole without seeing positions."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from s5_envs import spaces
from s5_envs.base import EnvParams
from s5_envs.popgym.cartpole import CartPole, State

__all__ = ["State", "VelocityOnlyCartPole"]


@dataclass(frozen=True)
class VelocityOnlyCartPole(CartPole):
    """A CartPole that shows the cart's velocity [m/s] and the pole's [rad/s]: ``(2,)`` float32.

    An episode's first observation is position and angle instead. That is a slip of the reference, kept
    because published scores were made with it. Actions, rewards and ends are those of ``CartPole``.

    Args:
        max_episode_length: the time limit in steps.
    """

    def get_obs(
        self, state: State, params: EnvParams | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Return both velocities; position and angle before the first step."""
        x, x_dot, angle, angle_dot = state.physics
        positions, velocities = jnp.stack([x, angle]), jnp.stack([x_dot, angle_dot])
        return jnp.where(state.time == 0, positions, velocities).astype(jnp.float32)

    def observation_space(self, params: EnvParams | None = None) -> spaces.Box:
        """Return the space of velocities, which has no bounds."""
        return spaces.Box(-jnp.inf, jnp.inf, (2,))
