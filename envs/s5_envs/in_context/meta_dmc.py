"""MetaDMC-v0: Lu et al. (2023), section 4.4, on MuJoCo Playground's DeepMind Control tasks."""

from __future__ import annotations

from collections.abc import Sequence

from s5_envs.in_context.many_tasks import Split, chosen, hidden_task
from s5_envs.in_context.multi_task import Family, MultiTask

TASKS: dict[str, Split] = {
    "BallInCup": "training",
    "CartpoleSwingup": "training",
    "FingerSpin": "training",
    "FingerTurnHard": "training",
    "PointMass": "training",
    "ReacherEasy": "training",
    "CartpoleBalance": "held_out",
    "FingerTurnEasy": "held_out",
    "PendulumSwingup": "held_out",
    "ReacherHard": "held_out",
}
"""The paper's, but for point_mass hard (held out), which Playground lacks: PointMass with random gains."""


def meta_dmc(
    split: Split = "training",
    tasks: Sequence[str] | None = None,
    obs_dim: int = 12,
    action_dim: int = 2,
    num_trials: int = 1,
    show_action: bool = True,
    symlog: bool = False,
) -> MultiTask:
    """Build the paper's many-task setting from Playground's tasks; see ``meta_control`` for what it is.

    Episodes have 1,000 steps, rewards are from 0 to 1 a step.

    Args:
        split: ``"training"`` or ``"held_out"``, see ``TASKS``.
        tasks: names in place of a split's, of those in ``TASKS``.
        obs_dim: numbers to which observations are projected.
        action_dim: numbers from which actions are projected.
        num_trials: trials of a task.
        show_action: show the last action.
        symlog: show symlog of observations, before their projection, and pay symlog of rewards.

    Raises:
        ValueError: where Playground is not installed, for an unknown split or task, and what the wrappers
            say.
    """
    from s5_envs import playground

    playground.suite("MetaDMC-v0")
    families = []
    for name in chosen("MetaDMC", TASKS, split, tasks):
        inner, params = playground.make(name)
        env = hidden_task(inner, num_trials, obs_dim, action_dim, show_action, symlog)
        families.append(Family(name, env, params))
    return MultiTask(tuple(families))
