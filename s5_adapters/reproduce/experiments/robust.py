"""How often learning ends above a bar, and how far it falls after having reached it, over many seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from s5_adapters.demo import CONFIGS
from s5_adapters.purejax import PPOConfig
from s5_adapters.reproduce.spec import Entry, Experiment, Scale, trained

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "half learning rate": {"learning_rate": 5e-4},
    "adam eps 1e-8": {"adam_eps": 1e-8},
    "value loss not clipped": {"clip_value_loss": False},
    "tighter policy clip": {"clip_range": 0.1},
    "gradient norm 0.25": {"max_grad_norm": 0.25},
    "constant learning rate": {"anneal_learning_rate": False},
}
TASKS = {
    "RepeatPreviousEasy": CONFIGS["s5"],
    "PositionOnlyCartPoleEasy": PPOConfig(env_id="PositionOnlyCartPoleEasy", memory="s5"),
}


def entries(scale: Scale) -> tuple[Entry, ...]:
    """Return an entry for every task with every setting, the same at both scales: the tasks are small."""
    return tuple(
        trained(task, replace(config, **changes), setting=setting, group="robust")
        for task, config in TASKS.items()
        for setting, changes in SETTINGS.items()
    )


EXPERIMENT = Experiment(
    title="Robust learning",
    text=(
        "Each setting changes one thing of the default. A seed ends above the bar where the mean return "
        "over the last tenth of the steps does. The fall is the most that a running mean over a "
        "twentieth of the updates lost against its own best once that had reached the bar.",
    ),
    entries=entries,
    seeds={"small": 20, "paper": 20},
    report="robust",
    bars=dict.fromkeys(TASKS, 0.95),
)
