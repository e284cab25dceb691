"""bsuite's memory length: a bit is shown once and asked for after 4 to 4,096 steps."""

from __future__ import annotations

from typing import Any

from s5_adapters.purejax import PPOConfig
from s5_adapters.reproduce.published import MEMORY_LENGTH
from s5_adapters.reproduce.spec import Entry, Experiment, Scale, trained, with_memory

MEMORIES = ("s5", "lstm", "gru", "attention")
UPDATES = {4: 300, 16: 300, 64: 300, 256: 300, 512: 300, 1024: 300, 2048: 400, 4096: 400}
LENGTHS = {"small": (4, 16, 64, 256, 512, 1024, 2048), "paper": tuple(UPDATES)}
_NUM_ENVS = 64


def entries(scale: Scale) -> tuple[Entry, ...]:
    """Return an entry for every length with every memory."""
    return tuple(
        trained(
            f"MemoryChain-{length}",
            with_memory(_ours(length), memory, **_extra(memory, length)),
            setting="ours",
            group="chain",
            position=length,
        )
        for length in LENGTHS[scale]
        for memory in MEMORIES
    )


def _ours(length: int) -> PPOConfig:
    return PPOConfig(
        env_id="MemoryChain-bsuite",
        env_kwargs={"memory_length": length},
        memory="s5",
        memory_config={"d_model": 64, "d_state": 128, "n_layers": 1, "dt_min": 1e-4, "dt_max": 0.1},
        num_envs=_NUM_ENVS,
        num_steps=length + 1,  # an episode, so that gradients span the whole chain
        total_steps=UPDATES[length] * _NUM_ENVS * (length + 1),
        num_epochs=4,
        num_minibatches=4,
        learning_rate=1e-3,
        # The answer is rewarded at once; what precedes it changes nothing. With a discount every one of
        # the steps before would be credited with the answer's luck, which drowns it in noise.
        gamma=0.0,
        gae_lambda=0.0,
    )


def _extra(memory: str, length: int) -> dict[str, Any]:
    return {"context": length + 1} if memory == "attention" else {}


EXPERIMENT = Experiment(
    title="bsuite's memory length",
    text=(
        "A bit is shown at the beginning of an episode and asked for at its end: 1 for the right answer, "
        "-1 for the wrong one, so that guessing earns 0. MMER is the largest mean return of an update's "
        "episodes, which for a policy that guesses in 64 episodes is above 0; the final return is the "
        "mean over the last tenth of the steps.",
        "The setting `ours` is PPO in 64 environments with one layer of 64, gradients through the whole "
        "chain, and no credit to any but the answering step (gamma 0); other memories have S5's number "
        "of parameters, and attention a window of the whole chain. The published setting is A2C in one "
        "environment with gradients over 32 steps.",
    ),
    entries=entries,
    seeds={"small": 3, "paper": 5},
    report="returns",
    published=(MEMORY_LENGTH,),
    bars={f"MemoryChain-{length}": 0.95 for length in UPDATES},
)
