"""NoisyPositionOnlyCartPole: balance the pole without velocities and with noisy positions."""

from __future__ import annotations

from dataclasses import dataclass

from s5_envs.popgym.cartpole import CartPole, State

__all__ = ["NoisyPositionOnlyCartPole", "State"]


@dataclass(frozen=True)
class NoisyPositionOnlyCartPole(CartPole):
    """A CartPole that shows position [m] and angle [rad] with Gaussian noise, clipped to twice the limits.

    Observation: ``(2,)`` float32. Actions, rewards and ends are those of ``CartPole``.

    Args:
        max_episode_length: the time limit in steps.
        noise_sigma: standard deviation of the noise, on m and rad alike as in the reference.
    """

    noise_sigma: float = 0.1

    draw_words = 2
