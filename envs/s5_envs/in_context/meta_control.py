"""MetaControl-v0: gymnax's continuous control tasks behind random projections, some of them held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import gymnax

from s5_envs.adapt import adapt, narrow
from s5_envs.in_context.inputs import ScaleReward
from s5_envs.in_context.many_tasks import Split, chosen, hidden_task
from s5_envs.in_context.multi_task import Family, MultiTask


class Task(NamedTuple):
    """How a task of gymnax takes part."""

    split: Split
    reward_scale: float
    """One over the largest size of a step's reward."""


TASKS = {
    "Pendulum-v1": Task("training", 1 / 16.3),  # pi^2 + 0.1 * 8^2 + 0.001 * 2^2
    "Reacher-misc": Task("training", 1.0),
    "PointRobot-misc": Task("training", 1.0),
    "MountainCarContinuous-v0": Task("held_out", 1 / 100),
    "Swimmer-misc": Task("held_out", 1.0),
}


def meta_control(
    split: Split = "training",
    tasks: Sequence[str] | None = None,
    obs_dim: int = 12,
    action_dim: int = 2,
    num_trials: int = 1,
    show_action: bool = True,
    symlog: bool = False,
) -> MultiTask:
    """Build the many-task setting of Lu et al. (2023), section 4.4, from gymnax's continuous tasks.

    Every episode is a task: ``num_trials`` trials with gymnax's time limits, from the same start, behind
    projections of observations and actions of their own. Shown are the projected observation, the last
    action, the last reward and whether a trial has ended: ``(obs_dim + action_dim + 2,)`` float32. Actions
    are ``(action_dim,)`` from -1 to 1. Rewards are scaled to a size of 1 or less a step.

    The paper's policy is shown no action (``show_action=False``), its suite is dm_control, its episodes
    have 1,000 steps; how its projections are distributed it does not say (here: uniformly orthogonal).

    Args:
        split: ``"training"`` or ``"held_out"``, see ``TASKS``.
        tasks: gymnax ids in place of a split's, of those in ``TASKS``.
        obs_dim: numbers to which observations are projected.
        action_dim: numbers from which actions are projected.
        num_trials: trials of a task.
        show_action: show the last action.
        symlog: show symlog of observations, before their projection, and pay symlog of rewards.

    Raises:
        ValueError: for an unknown split or task, and what the wrappers say.
    """
    families = []
    for name in chosen("MetaControl", {name: task.split for name, task in TASKS.items()}, split, tasks):
        with narrow():
            inner, params = gymnax.make(name)
        scaled = ScaleReward(adapt(inner, params, name=name, always=True), TASKS[name].reward_scale)
        env = hidden_task(scaled, num_trials, obs_dim, action_dim, show_action, symlog)
        families.append(Family(name, env, params))
    return MultiTask(tuple(families))
