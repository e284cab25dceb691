"""NoisyPositionOnlyPendulum: swing the pendulum up without its velocity and with noisy positions."""

from __future__ import annotations

from dataclasses import dataclass

from s5_envs.popgym.pendulum import Pendulum, State

__all__ = ["NoisyPositionOnlyPendulum", "State"]


@dataclass(frozen=True)
class NoisyPositionOnlyPendulum(Pendulum):
    """A pendulum that shows cosine and sine of its angle with Gaussian noise, clipped to [-1, 1].

    Observation: ``(2,)`` float32. Actions and rewards are those of ``Pendulum``.

    Args:
        max_episode_length: steps in an episode.
        noise_sigma: standard deviation of the noise on both components.
    """

    noise_sigma: float = 0.1

    draw_words = 2
