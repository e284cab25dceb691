"""bsuite's memory length: a bit is shown once and asked for after 4 to 4,096 steps."""

from __future__ import annotations

from typing import Any

from s5_adapters.purejax import PPOConfig
from s5_adapters.purejax.algorithms.a2c import A2CConfig
from s5_adapters.reproduce.published import MEMORY_LENGTH
from s5_adapters.reproduce.spec import Entry, Experiment, Scale, trained, with_memory

MEMORIES = ("s5", "lstm", "gru", "attention")
UPDATES = {4: 150, 16: 150, 64: 150, 256: 150, 512: 150, 1024: 150, 2048: 150, 4096: 200}
LENGTHS = {"small": (4, 16, 64, 256, 512, 1024, 2048), "paper": tuple(UPDATES)}
PUBLISHED_LENGTHS = {
    "small": (4, 8, 16, 32, 64, 128),
    "paper": (4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096),
}
EPISODES = 10_000
_NUM_ENVS = 64


def entries(scale: Scale) -> tuple[Entry, ...]:
    """Return an entry for every length with every memory, in our setting and in the published one."""
    return (
        *(
            _entry(length, with_memory(_ours(length), memory, **_extra(memory, length)), "ours")
            for length in LENGTHS[scale]
            for memory in MEMORIES
        ),
        *(
            _entry(length, _published(length, memory), "published")
            for length in PUBLISHED_LENGTHS[scale]
            for memory in MEMORIES
        ),
    )


def _entry(length: int, config: PPOConfig | A2CConfig, setting: str) -> Entry:
    return trained(f"MemoryChain-{length}", config, setting=setting, group="chain", position=length)


def _published(length: int, memory: str) -> A2CConfig:
    """Return the setting of Lu et al., bsuite's with its LSTM exchanged; S5's time steps are not stated."""
    memory_config: dict[str, Any] = {"d_model": 256, "n_layers": 1, **_extra(memory, length)}
    if memory == "s5":
        memory_config |= {"d_state": 256, "dt_min": 0.001, "dt_max": 0.1, "clip_eigenvalues": False}
    return A2CConfig(
        env_id="MemoryChain-bsuite",
        env_kwargs={"memory_length": length},
        memory=memory,
        memory_config=memory_config,
        encoder=(256, 256),
        actor_torso=(),
        critic_torso=(),
        activation="relu",
        optimizer="adam",
        learning_rate=3e-4,
        anneal_learning_rate=False,
        adam_eps=1e-8,
        max_grad_norm=None,
        gamma=0.99,
        gae_lambda=0.9,
        entropy_coef=0.0,
        num_envs=1,
        num_steps=32,
        total_steps=EPISODES * (length + 1),
    )


def _ours(length: int) -> PPOConfig:
    return PPOConfig(
        env_id="MemoryChain-bsuite",
        env_kwargs={"memory_length": length},
        memory="s5",
        # Time scales around the length: a slower one writes the bit too faintly, a faster one forgets it.
        memory_config={
            "d_model": 64,
            "d_state": 128,
            "n_layers": 1,
            "dt_min": 0.5 / length,
            "dt_max": 5 / length,
            "clip_eigenvalues": False,
        },
        # The bit is in one observation of the whole chain, the time in every one.
        normalize_observations=True,
        num_envs=_NUM_ENVS,
        num_steps=length + 1,  # an episode, so that gradients span the whole chain
        total_steps=UPDATES[length] * _NUM_ENVS * (length + 1),
        num_epochs=4,
        num_minibatches=4,
        learning_rate=2e-3,
        target_kl=None,
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
        "-1 for the wrong one, so that guessing earns 0. The final return is the mean over the last tenth "
        "of the steps. MMER is the largest mean return of an update's episodes: in 64 environments a policy "
        "that guesses has one above 0, and in one environment, whose update has one episode at most, it "
        "says nothing.",
        "The setting `ours` is PPO in 64 environments with one layer of 64, gradients through the whole "
        "chain, no credit to any but the answering step (gamma 0), and observations normalised; S5's time "
        "steps are from 0.5 to 5 over the length. Other memories have S5's number of parameters, and "
        "attention a window of the whole chain.",
        f"The setting `published` is that of Lu et al.: A2C in one environment for {EPISODES:,} episodes, "
        "gradients over 32 steps, Adam at 3e-4, no entropy bonus, an encoder of [256, 256] with ReLU, one "
        "layer of 256, gamma .99, TD(lambda) with lambda .9. At `small` it is run up to a length of 128. "
        "Not stated there, and so ours: S5's time steps (.001 to .1), Adam's epsilon (1e-8), no clipping of "
        "gradients, a value loss of weight 1, attention with a window of the whole chain.",
    ),
    entries=entries,
    seeds={"small": 3, "paper": 5},
    report="returns",
    published=(MEMORY_LENGTH,),
    bars={f"MemoryChain-{length}": 0.95 for length in sorted({*UPDATES, *PUBLISHED_LENGTHS["paper"]})},
)
