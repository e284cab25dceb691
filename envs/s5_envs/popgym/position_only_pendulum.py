"""PositionOnlyPendulum: swing the pendulum up without seeing its velocity."""

from __future__ import annotations

from dataclasses import dataclass

from s5_envs.popgym.pendulum import Pendulum, State

__all__ = ["PositionOnlyPendulum", "State"]


@dataclass(frozen=True)
class PositionOnlyPendulum(Pendulum):
    """A pendulum that shows cosine and sine of its angle: ``(2,)`` float32.

    Actions and rewards are those of ``Pendulum``.

    Args:
        max_episode_length: steps in an episode.
    """
