"""The configuration of a training run, whatever learns: environment, network, sizes, optimiser."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, Self

from flax.core import FrozenDict, freeze

from s5_adapters.core import checks
from s5_adapters.core.memories import defaults
from s5_adapters.purejax.fields import (
    Count,
    Flag,
    Fraction,
    Name,
    Options,
    Parts,
    PartScales,
    Positive,
    PositiveOrNone,
    Widths,
    checked,
    to_json,
)

Precision = Literal["default", "float32", "tensorfloat32", "bfloat16"]
CriticMemory = Literal["shared", "shared_detached", "separate", "none"]
Optimizer = Literal["adam", "rmsprop"]
TimeLimit = Literal["bootstrap", "terminal"]
TrialEnd = Literal["continue", "terminal"]
OnNonfinite = Literal["stop", "skip"]


@dataclasses.dataclass(frozen=True)
class EnvironmentConfig:
    """Where a policy acts."""

    env_id: Name = "RepeatPreviousEasy"
    """Environment: an id of ``s5-adapters envs`` or any gymnax id."""
    env_kwargs: Options = dataclasses.field(default_factory=dict)
    """Keyword arguments of the environment, as ``s5_envs.make(env_id, **env_kwargs)`` takes them."""


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """The network but for its spaces: the fields of ``core.ActorCriticConfig``, with defaults to train."""

    memory: Name = "s5"
    """Memory between encoder and torsos: a name that ``make_memory`` knows ("s5", "mamba", "gru", ...)."""
    memory_config: Options = dataclasses.field(default_factory=lambda: dict(defaults.SIZES))
    """Keyword arguments of the memory; what is left out takes the defaults that all ecosystems share
    (docs/choosing.md), and where they have none the memory's own."""
    encoder: Widths = (64,)
    """Widths of the layers before the memory (images: of the layers after the Nature CNN)."""
    actor_torso: Widths = (64,)
    """Widths of the layers between the memory and the action head."""
    critic_torso: Widths = (64,)
    """Widths of the layers between the memory and the value head."""
    activation: Name = "leaky_relu"
    """Activation of encoder and torsos."""
    critic_memory: CriticMemory = "shared"
    """Whether the critic reads the actor's memory (and trains it), has one of its own, or none."""
    cnn_features: Count = 512
    """Width of the Nature CNN's last layer; images only."""

    def completed(self) -> Self:
        """Return the same with the defaults that ``memory_config`` leaves out.

        Raises:
            ValueError: an unknown memory, or a size that decides another default and is none.
        """
        return dataclasses.replace(self, memory_config=defaults.complete(self.memory, self.memory_config))

    @property
    def network(self) -> FrozenDict[str, Any]:
        """The network's fields alone, by name, completed."""
        whole = self.completed()
        fields: FrozenDict[str, Any] = freeze({name: getattr(whole, name) for name in NETWORK_FIELDS})
        return fields


NETWORK_FIELDS = tuple(field.name for field in dataclasses.fields(NetworkConfig))


@dataclasses.dataclass(frozen=True)
class TrainConfig(NetworkConfig, EnvironmentConfig):
    """Fields that all algorithms share.

    Instances are immutable, hashable and equal by value; lists become tuples and mappings become frozen
    mappings, so a configuration read from JSON equals the one that was written.

    Raises:
        ValueError: one line naming the field, the value that came and what was expected.
    """

    precision: Precision = "default"
    """The precision to which matrix products round their factors; all else stays float32. "default" is JAX's
    for the platform: float32 on CPU, TF32 on recent NVIDIA GPUs, the only ones that know it. On CPU,
    "bfloat16" rounds in S5, attention, encoder and torsos (a GRU's and an LSTM's cells are flax's) and is
    faster for wide networks where the processor multiplies bfloat16 (measured with AVX512_BF16)."""

    total_steps: Count = 500_000
    """Steps of the whole run, over all environments; a rollout that would exceed it is not begun."""
    num_envs: Count = 32
    """Environments stepped side by side."""
    num_steps: Count = 104
    """Steps of each environment in one rollout; gradients through the memory reach back this far."""

    optimizer: Optimizer = "adam"
    """What turns gradients into steps."""
    learning_rate: Positive = 1e-3
    """The optimiser's step size (at the start of the run, if annealed)."""
    anneal_learning_rate: Flag = True
    """Decrease the learning rate linearly to zero over the run, once per update."""
    adam_eps: Positive = 1e-5
    """Epsilon of Adam and RMSProp, added to the root of the mean of squares."""
    dynamics_lr_scale: Positive = 1.0
    """Multiplies the learning rate of what makes a memory's state fade and turn: lambda and the time steps of
    "s5", and their likes in "lru" and "mamba". S5's authors train them more slowly than the rest."""
    freeze: Parts = ()
    """Parts of the network that do not learn: "encoder", "memory", "torsos", "heads"."""
    lr_scales: PartScales = dataclasses.field(default_factory=dict)
    """Multiplies the learning rate of parts, as in {"memory": 0.1}."""
    max_grad_norm: PositiveOrNone = 0.5
    """Gradients are scaled down to this global norm; None leaves them alone."""

    on_nonfinite: OnNonfinite = "stop"
    """What follows a gradient that is infinite or not a number: "stop", the run stops and names it; "skip",
    that step is not taken, and counted. What an environment gives must be finite all the same."""

    gamma: Fraction = 0.99
    """Discount."""
    time_limit: TimeLimit = "bootstrap"
    """What follows an episode that was truncated: "bootstrap", the value of its final observation, since a
    time limit is not the end of the task; "terminal", nothing, as if it had ended by its own rules."""
    trial_end: TrialEnd = "continue"
    """What follows a trial's end within a task, in an environment with ``s5_envs.Trials``: "continue", the
    task's next trials; "terminal", nothing: an action is credited with its own trial's return, while the
    memory carries on. For tasks whose later trials come whatever happens in this one."""
    resets: Flag = True
    """Tell the memory where episodes start, in training and evaluation. False is an ablation: it carries on
    from one episode into the next. Exported policies do not know of it, and reset."""

    normalize_observations: Flag = False
    """Standardise observations by running statistics, which evaluation and checkpoints carry along."""
    normalize_rewards: Flag = False
    """Divide rewards by the running standard deviation of the discounted return; logged returns stay raw."""

    def __post_init__(self) -> None:
        """Check every field, and freeze what came mutable."""
        for name, value in checked(self).items():
            object.__setattr__(self, name, value)
        if self.total_steps < self.steps_per_update:
            raise ValueError(
                f"total_steps={self.total_steps} is less than one rollout of num_envs * num_steps = "
                f"{self.num_envs} * {self.num_steps} = {self.steps_per_update}"
            )

    @property
    def steps_per_update(self) -> int:
        """Environment steps in one rollout, over all environments."""
        return self.num_envs * self.num_steps

    @property
    def num_updates(self) -> int:
        """Rollouts, each followed by its learning, in the whole run."""
        return self.total_steps // self.steps_per_update

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return {field.name: to_json(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make one of what ``to_dict`` returned; fields left out take their defaults.

        Raises:
            ValueError: an unknown field, with the known ones, the nearest first, or a value out of range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise ValueError(
                    f"unknown field {name!r}, expected one of {checks.nearest_names(name, known)}"
                )
        return cls(**values)
