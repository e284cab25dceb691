"""Settings of many tasks: a split into training and held out, the wrappers of a hidden task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from s5_envs.in_context.inputs import PreviousReward, TrialEnd
from s5_envs.in_context.projection import RandomProjection
from s5_envs.in_context.symlog import Symlog
from s5_envs.in_context.trials import Trials
from s5_envs.wrappers import PreviousAction, Wrapper

Split = Literal["training", "held_out"]


def chosen(name: str, splits: Mapping[str, Split], split: Split, tasks: Sequence[str] | None) -> list[str]:
    """Return the tasks of a split, or those given.

    Args:
        name: what messages call the setting.
        splits: all tasks, and the split of each.
        split: whose tasks.
        tasks: given in place of a split's.

    Raises:
        ValueError: for an unknown split or task.
    """
    if split not in get_args(Split):
        raise ValueError(f"{name}: split must be training or held_out, got {split!r}")
    if tasks is None:
        return [task for task, own in splits.items() if own == split]
    unknown = [task for task in tasks if task not in splits]
    if unknown or isinstance(tasks, str):
        raise ValueError(f"{name}: tasks must be some of {', '.join(splits)}, got {tasks!r}")
    return list(tasks)


def hidden_task(
    env: Any, num_trials: int, obs_dim: int, action_dim: int, show_action: bool, symlog: bool
) -> Wrapper:
    """Put an environment in trials and behind projections, and show action, reward and trial's end."""
    if symlog:  # before the projection, which would mix large numbers into all others
        env = Symlog(env, rewards=False)
    hidden: Wrapper = RandomProjection(Trials(env, num_trials), obs_dim=obs_dim, action_dim=action_dim)
    if symlog:  # around Trials, which tells raw returns
        hidden = Symlog(hidden, observations=False)
    if show_action:
        hidden = PreviousAction(hidden, first_step_flag=False)
    return TrialEnd(PreviousReward(hidden))
