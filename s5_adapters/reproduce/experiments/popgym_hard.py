"""The five Hard tasks of POPGym on which the paper reports S5."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from s5_adapters.purejax import PPOConfig
from s5_adapters.purejax.config import TimeLimit
from s5_adapters.reproduce.published import POPGYM_BEST, POPGYM_HARD
from s5_adapters.reproduce.spec import Entry, Experiment, Scale, trained, with_memory

MEMORIES = ("s5", "gru", "lstm", "feedforward")
WITHOUT_RESETS = "s5 without resets"
_SMALL: dict[str, Any] = {
    "memory": "s5",
    "memory_config": {
        "d_model": 128,
        "d_state": 256,
        "n_layers": 2,
        "dt_min": 0.003,
        "dt_max": 0.1,
        "clip_eigenvalues": False,
    },
    "encoder": (128,),
    "actor_torso": (128,),
    "critic_torso": (128,),
    "num_envs": 64,
    "num_epochs": 4,
    "num_minibatches": 8,
    "learning_rate": 7e-4,
    "anneal_learning_rate": True,
    "target_kl": None,
}
# A card is named for the sake of its own reward, which comes at once: a short horizon learns fastest.
_CARDS: dict[str, Any] = {"total_steps": 2_500_000, "num_steps": 104, "gamma": 0.9, "gae_lambda": 0.8}
# The paper's input: every observation with the action before it and a flag on an episode's first.
_CONTROL: dict[str, Any] = {
    "total_steps": 3_000_000,
    "num_steps": 128,
    "env_kwargs": {"previous_action": True},
}
TASKS: dict[str, dict[str, Any]] = {
    "RepeatPreviousHard": _CARDS,
    "PositionOnlyCartPoleHard": _CONTROL,
    "NoisyPositionOnlyCartPoleHard": _CONTROL,
    "PositionOnlyPendulumHard": _CONTROL,
    "NoisyPositionOnlyPendulumHard": _CONTROL,
}
TIME_LIMITED = tuple(task for task in TASKS if TASKS[task] is _CONTROL)
# What a scale's other lines do not do.
_OTHER: dict[Scale, TimeLimit] = {"small": "terminal", "paper": "bootstrap"}


def entries(scale: Scale) -> tuple[Entry, ...]:
    """Return an entry for every task with every memory, for S5 without resets, and for the other meaning of
    a time limit.
    """
    make = _small if scale == "small" else _paper
    return (
        *(_entry(task, make(task, memory), scale) for task in TASKS for memory in MEMORIES),
        *(
            _entry(task, replace(make(task, "s5"), resets=False), scale, memory=WITHOUT_RESETS)
            for task in TASKS
        ),
        *(
            _entry(task, replace(make(task, "s5"), time_limit=_OTHER[scale]), f"{scale} {_OTHER[scale]}")
            for task in TIME_LIMITED
        ),
    )


def _entry(task: str, config: PPOConfig, setting: str, **rest: Any) -> Entry:
    return trained(task, config, setting=setting, group="hard", **rest)


def _small(task: str, memory: str) -> PPOConfig:
    return with_memory(PPOConfig(env_id=task, **(_SMALL | TASKS[task])), memory)


def _paper(task: str, memory: str) -> PPOConfig:
    return PPOConfig.paper(env_id=task, memory=memory, env_kwargs={"previous_action": True})


EXPERIMENT = Experiment(
    title="POPGym's Hard tasks",
    text=(
        "MMER is POPGym's score: the largest mean return of an update's episodes. The final return is "
        "the mean over the last tenth of the steps.",
        "The setting `small` is ours: two layers of 128, the other memories widened to S5's number of "
        "parameters, a fifth of the published steps or fewer; RepeatPrevious sees the card alone, with a "
        "discount of .9. The setting `paper` is the published one: S5 of 4 layers of 256, a GRU of one, 15 "
        "million steps, every observation with the previous action and a first-step flag; an LSTM and a "
        "feedforward network, whose sizes are not published, have S5's width and depth.",
        "`small` bootstraps where a time limit cut an episode; `paper`, as the published program, takes "
        "that for its end. `small terminal` and `paper bootstrap` do it the other way round, with S5, in "
        "the four tasks that have a time limit. `s5 without resets` is never told that an episode "
        "begins.",
    ),
    entries=entries,
    seeds={"small": 5, "paper": 8},
    report="returns",
    published=(POPGYM_HARD, POPGYM_BEST),
    bars={"RepeatPreviousHard": 0.95},
)
