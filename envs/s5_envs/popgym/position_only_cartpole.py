"""PositionOnlyCartPole: balance the pole without seeing velocities."""

from __future__ import annotations

from dataclasses import dataclass

from s5_envs.popgym.cartpole import CartPole, State

__all__ = ["PositionOnlyCartPole", "State"]


@dataclass(frozen=True)
class PositionOnlyCartPole(CartPole):
    """A CartPole that shows the cart's position [m] and the pole's angle [rad]: ``(2,)`` float32.

    Actions, rewards and ends are those of ``CartPole``.

    Args:
        max_episode_length: the time limit in steps.
    """
