"""All 48 ids of POPGym with memories of equal size, in equal steps."""

from __future__ import annotations

import s5_envs
from s5_adapters.purejax import PPOConfig
from s5_adapters.reproduce.published import POPGYM_BEST
from s5_adapters.reproduce.spec import Entry, Experiment, Scale, trained, with_memory

MEMORIES = ("s5", "gru", "lstm", "feedforward")
DIFFICULTIES = ("Easy", "Medium", "Hard")
STEPS = 500_000


def entries(scale: Scale) -> tuple[Entry, ...]:
    """Return an entry for every id with every memory."""
    return tuple(
        trained(env_id, _config(env_id, memory, scale), setting=scale, group=_difficulty(env_id))
        for env_id in s5_envs.popgym_ids()
        for memory in MEMORIES
    )


def _config(env_id: str, memory: str, scale: Scale) -> PPOConfig:
    if scale == "paper":
        return PPOConfig.paper(env_id=env_id, memory=memory, env_kwargs={"previous_action": True})
    s5 = PPOConfig(
        env_id=env_id,
        memory="s5",
        memory_config={"d_model": 64, "d_state": 64, "n_layers": 2, "dt_min": 0.003, "dt_max": 0.3},
        num_envs=32,
        num_steps=104,
        total_steps=STEPS,
        entropy_coef=0.003,
    )
    return with_memory(s5, memory)


def _difficulty(env_id: str) -> str:
    return next(name for name in DIFFICULTIES if env_id.endswith(name))


EXPERIMENT = Experiment(
    title="All of POPGym",
    text=(
        "MMER is POPGym's score: the largest mean return of an update's episodes. Normalised returns are "
        "0 for random actions and 1 for the best play known of a player who sees the hidden state "
        "(`s5-adapters envs`), and are of the last tenth of the steps.",
        f"The setting `small` is one for all ids, tuned to none: {STEPS:,} steps, two layers of 64, "
        "encoder and torsos equal in all, the other memories widened to S5's number of parameters. "
        "POPGym itself and the setting `paper` train for 15 million steps: returns here are of a "
        "thirtieth of that.",
        "Of POPGym's own results, the best of its 13 memories is shown where it is known here, on the five "
        "tasks of `popgym-hard`; its table of a GRU by task is not at hand. Its setting differs, beside "
        "the steps: RLlib's PPO with updates of 65,536 steps in whole episodes and minibatches of 8,192, "
        "dense layers of 128 around one memory of 256, a discount of .99 throughout, and in every "
        "observation the previous action and a flag on an episode's first step.",
    ),
    entries=entries,
    seeds={"small": 1, "paper": 3},
    report="returns",
    published=(POPGYM_BEST,),
)
