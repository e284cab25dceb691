"""How often learning ends above a bar, and how far it falls after having reached it, over many seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from s5_adapters.core.memories.defaults import complete, complete_rates
from s5_adapters.demo import CONFIGS
from s5_adapters.purejax import PPOConfig
from s5_adapters.reproduce.spec import Entry, Experiment, Scale, trained

TASKS = {
    "RepeatPreviousEasy": CONFIGS["s5"],
    "PositionOnlyCartPoleEasy": PPOConfig(env_id="PositionOnlyCartPoleEasy", memory="s5"),
}
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "half learning rate": {"learning_rate": 5e-4},
    "constant learning rate": {"anneal_learning_rate": False},
    "memory at 0.3 of the rate": {"lr_scales": {"memory": 0.3}},
    "dynamics at 0.1 of the rate": {"dynamics_lr_scale": 0.1},
    "dynamics at 0.3 of the rate": {"dynamics_lr_scale": 0.3},
    "eigenvalues not bounded": {"memory_config": {"clip_eigenvalues": False}},
    "no target_kl": {"target_kl": None},
    "tighter policy clip": {"clip_range": 0.1},
    "value loss not clipped": {"clip_value_loss": False},
    "advantages as they are": {"normalize_advantages": False},
    "adam eps 1e-8": {"adam_eps": 1e-8},
    "gradient norm 0.25": {"max_grad_norm": 0.25},
}
BEFORE = {
    task: {
        "memory_config": {"dt_min": dt_min, "dt_max": 0.1, "clip_eigenvalues": False},
        "target_kl": None,
    }
    for task, dt_min in (("RepeatPreviousEasy", 0.01), ("PositionOnlyCartPoleEasy", 0.001))
}
"""What the demo and the trainer had until the defaults were measured."""

NOVEL = "CartPoleNoVel"
NOVEL_SEEDS = 10
_NOVEL_WORK: dict[str, Any] = {
    "steps": 50_000,
    "anneal": False,
    "arguments": {
        "n_steps": 128,
        "learning_rate": 7e-4,
        "batch_size": 256,
        "n_epochs": 10,
        "max_grad_norm": 1.0,
        "gae_lambda": 0.98,
    },
    "policy_kwargs": {
        "net_arch": {"vf": [64], "pi": []},
        "lstm_hidden_size": 64,
        "ortho_init": False,
        "enable_critic_lstm": True,
    },
}
LEARNERS = {
    "s5": ("RecurrentPPO", "S5Policy"),
    "s5 on segments": ("S5RecurrentPPO", "S5Policy"),
    "lstm": ("RecurrentPPO", "MlpLstmPolicy"),
}
LR_SCALES, DYNAMICS_LR_SCALE = complete_rates("s5", None, None)
_S5_DEFAULTS: dict[str, Any] = {
    "lr_scales": dict(LR_SCALES),
    "dynamics_lr_scale": DYNAMICS_LR_SCALE,
    **{name: complete("s5", {})[name] for name in ("dt_min", "dt_max", "clip_eigenvalues")},
}
"""Said, since a cell's name is made of what is said: with another default it is another cell."""
NOVEL_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "half learning rate": {"arguments": {"learning_rate": 3.5e-4}},
    "annealed learning rate": {"anneal": True},
    "default before": {
        "policy_kwargs": {"lr_scales": {}, "dynamics_lr_scale": 1.0, "clip_eigenvalues": False}
    },
    "memory at the full rate": {"policy_kwargs": {"lr_scales": {}}},
    "dynamics at the memory's rate": {"policy_kwargs": {"dynamics_lr_scale": 1.0}},
    "eigenvalues not bounded": {"policy_kwargs": {"clip_eigenvalues": False}},
    "target_kl 0.02": {"arguments": {"target_kl": 0.02}},
    "tighter policy clip": {"arguments": {"clip_range": 0.1}},
    "value loss clipped": {"arguments": {"clip_range_vf": 0.2}},
    "advantages as they are": {"arguments": {"normalize_advantage": False}},
    "adam eps 1e-8": {"policy_kwargs": {"optimizer_kwargs": {"eps": 1e-8}}},
    "gradient norm 0.25": {"arguments": {"max_grad_norm": 0.25}},
}


def entries(scale: Scale) -> tuple[Entry, ...]:
    """Return an entry for every task with every setting, the same at both scales: the tasks are small."""
    return (
        *(
            trained(task, _changed(config, changes), setting=setting, group="robust")
            for task, config in TASKS.items()
            for setting, changes in {**SETTINGS, "default before": BEFORE[task]}.items()
        ),
        *(
            _novel(learner, setting)
            for setting in NOVEL_SETTINGS
            for learner in LEARNERS
            if learner != "lstm" or setting == "default"
        ),
    )


def _changed(config: PPOConfig, changes: Mapping[str, Any]) -> PPOConfig:
    memory_config = dict(config.memory_config) | dict(changes.get("memory_config", {}))
    return replace(config, **{**changes, "memory_config": memory_config})


def _novel(learner: str, setting: str) -> Entry:
    algorithm, policy = LEARNERS[learner]
    changes = NOVEL_SETTINGS[setting]
    work = {"algorithm": algorithm, "policy": policy, "anneal": False, **_NOVEL_WORK}
    if learner != "lstm":
        work["policy_kwargs"] = {**work["policy_kwargs"], **_S5_DEFAULTS}
    for name, change in changes.items():
        work[name] = {**work[name], **change} if isinstance(change, Mapping) else change
    return Entry(NOVEL, learner, setting, "sb3", work, group="novel", seeds=NOVEL_SEEDS)


EXPERIMENT = Experiment(
    title="Robust learning",
    text=(
        "Each setting changes one thing of the default. A seed ends above the bar where its final return "
        "does: the mean return over the last tenth of the steps. The fall is the most that a running mean "
        "over a twentieth of the curve lost against its own best once that had reached the bar.",
        f"{NOVEL} is the performance test of sb3-contrib in Stable-Baselines3, its settings unchanged, with "
        f"its own LSTM beside: seeds 1 to {NOVEL_SEEDS}. `s5` is the stock RecurrentPPO with S5Policy, `s5 "
        "on segments` S5RecurrentPPO. There the final return is that test's, of 10 episodes after training, "
        "and the fall is of the evaluations of 20 episodes every 5,000 steps; in both the most likely "
        "action is taken.",
        "`dynamics` are lambda and the time steps, whose learning rate S5's authors keep lower. `default "
        "before` is what came before the defaults were measured: eigenvalues not bounded, the time steps of "
        "the demo (.01 to .1) and of the trainer (.001 to .1; now .01 to 1), and in Stable-Baselines3 the "
        "memory at the full rate (now at 0.3 of it, and lambda and the time steps at 0.03, since the rate is "
        "not annealed there).",
    ),
    entries=entries,
    seeds={"small": 20, "paper": 20},
    report="robust",
    bars={**dict.fromkeys(TASKS, 0.95), NOVEL: 450.0},
)
