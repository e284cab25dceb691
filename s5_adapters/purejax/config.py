"""What a training run is: every hyperparameter of the jitted recurrent PPO, in one frozen dataclass."""

import dataclasses
import math
import numbers
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, Self, get_args

from flax.core import FrozenDict, freeze

from s5_adapters.core import checks

DEFAULT_MEMORY_CONFIG: Mapping[str, Any] = {"d_model": 64, "n_layers": 2}
Precision = Literal["default", "float32", "tensorfloat32", "bfloat16"]
CriticMemory = Literal["shared", "shared_detached", "separate", "none"]


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """Hyperparameters of recurrent PPO (Schulman et al., arXiv 1707.06347) with a resettable memory.

    Instances are immutable, hashable and equal by value; lists become tuples and mappings become frozen
    mappings, so a configuration read from JSON equals the one that was written. The defaults learn
    RepeatPreviousEasy in well under a minute on two cores; :meth:`paper` is the published setting.

    Raises:
        ValueError: one line naming the field, the value that came and what was expected.
    """

    env_id: str = "RepeatPreviousEasy"
    """Environment: an id of ``s5-adapters envs`` or any gymnax id."""
    env_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Keyword arguments of the environment, as ``s5_envs.make(env_id, **env_kwargs)`` takes them."""

    memory: str = "s5"
    """Memory between encoder and torsos: a name that ``make_memory`` knows ("s5", "mamba", "gru", ...)."""
    memory_config: Mapping[str, Any] = dataclasses.field(default_factory=lambda: dict(DEFAULT_MEMORY_CONFIG))
    """Keyword arguments of the memory; what is left out takes the memory's own default."""
    encoder: tuple[int, ...] = (64,)
    """Widths of the layers before the memory (images: of the layers after the Nature CNN)."""
    actor_torso: tuple[int, ...] = (64,)
    """Widths of the layers between the memory and the action head."""
    critic_torso: tuple[int, ...] = (64,)
    """Widths of the layers between the memory and the value head."""
    activation: str = "leaky_relu"
    """Activation of encoder and torsos."""
    critic_memory: CriticMemory = "shared"
    """Whether the critic reads the actor's memory (and trains it), has one of its own, or none."""

    precision: Precision = "default"
    """What matrix products round their factors to; sums, states and parameters stay float32. "default" is
    JAX's for the platform: float32 on CPU, TF32 on recent NVIDIA GPUs, the only ones that know it. On CPU,
    "bfloat16" rounds in S5, attention, encoder and torsos (a GRU's and an LSTM's cells are flax's) and is
    faster for wide networks where the processor multiplies bfloat16 (measured with AVX512_BF16)."""

    total_steps: int = 500_000
    """Steps of the whole run, over all environments; a rollout that would exceed it is not begun."""
    num_envs: int = 32
    """Environments stepped side by side; a minibatch is ``num_envs / num_minibatches`` whole columns."""
    num_steps: int = 104
    """Steps of each environment in one rollout; gradients through the memory reach back this far."""
    num_epochs: int = 4
    """Passes over each rollout."""
    num_minibatches: int = 4
    """Gradient steps per pass; must divide ``num_envs``."""

    learning_rate: float = 1e-3
    """Adam's step size (at the start of the run, if annealed)."""
    anneal_learning_rate: bool = True
    """Decrease the learning rate linearly to zero over the run, once per update."""
    adam_eps: float = 1e-5
    """Adam's epsilon."""
    max_grad_norm: float | None = 0.5
    """Gradients are scaled down to this global norm; None leaves them alone."""

    gamma: float = 0.99
    """Discount."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation (Schulman et al., arXiv 1506.02438)."""
    clip_range: float = 0.2
    """Probability ratios are clipped to [1 - clip_range, 1 + clip_range]."""
    clip_value_loss: bool = True
    """Take the larger of the value's loss and that of the value held within ``clip_range`` of the old."""
    normalize_advantages: bool = True
    """Standardise the advantages within each minibatch."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    value_coef: float = 1.0
    """Weight of the value loss, which is half the mean squared error."""

    normalize_observations: bool = False
    """Standardise observations by running statistics, which evaluation and checkpoints carry along."""
    normalize_rewards: bool = False
    """Divide rewards by the running standard deviation of the discounted return; logged returns stay raw."""

    def __post_init__(self) -> None:
        """Check every field, and freeze what came mutable."""
        for name, check in _CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))
        _check_sizes(self)

    @property
    def steps_per_update(self) -> int:
        """Environment steps in one rollout, over all environments."""
        return self.num_envs * self.num_steps

    @property
    def num_updates(self) -> int:
        """Rollouts, each followed by its epochs, in the whole run."""
        return self.total_steps // self.steps_per_update

    @classmethod
    def paper(cls, **overrides: Any) -> Self:
        """The setting of Lu et al., NeurIPS 2023 (arXiv 2303.03982); ``overrides`` replace fields.

        With another memory than S5 the width and depth stay, and what only S5 has is left out.
        """
        memory_config: dict[str, Any] = {"d_model": 256, "n_layers": 4}
        if overrides.get("memory", "s5") == "s5":
            memory_config |= {"d_state": 256, "discretization": "zoh", "dt_min": 0.001, "dt_max": 0.1}
        setting: dict[str, Any] = {
            "memory_config": memory_config,
            "encoder": (128, 256),
            "actor_torso": (128, 128),
            "critic_torso": (128, 128),
            "activation": "leaky_relu",
            "total_steps": 15_000_000,
            "num_envs": 64,
            "num_steps": 1024,
            "num_epochs": 30,
            "num_minibatches": 8,
            "learning_rate": 5e-5,
            "anneal_learning_rate": False,
            "max_grad_norm": 0.5,
            "gamma": 0.99,
            "gae_lambda": 1.0,
            "clip_range": 0.2,
            "entropy_coef": 0.0,
            "value_coef": 1.0,
        }
        return cls(**(setting | overrides))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: _to_json(value) for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`; fields left out take their defaults.

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


def _check_sizes(config: PPOConfig) -> None:
    if config.num_envs % config.num_minibatches:
        divisors = ", ".join(str(n) for n in range(1, config.num_envs + 1) if config.num_envs % n == 0)
        raise ValueError(
            f"num_minibatches={config.num_minibatches} does not divide num_envs={config.num_envs}: "
            f"minibatches are whole environments, so expected one of {divisors}"
        )
    if config.total_steps < config.steps_per_update:
        raise ValueError(
            f"total_steps={config.total_steps} is less than one rollout of num_envs * num_steps = "
            f"{config.num_envs} * {config.num_steps} = {config.steps_per_update}"
        )


def _number(name: str, value: Any, *, low: float, high: float = math.inf, inclusive: bool = True) -> float:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    in_range = is_number and math.isfinite(value) and low <= value <= high
    if not in_range or (value == low and not inclusive):
        bounds = f"{'>=' if inclusive else '>'} {low:g}" + ("" if high == math.inf else f" and <= {high:g}")
        raise ValueError(f"{name}: got {value!r}, expected a number {bounds}")
    return float(value)


def _whole(name: str, value: object) -> int:
    if isinstance(value, float) and value.is_integer():  # 15e6 is how people write it
        value = int(value)
    return checks.integer(name, value)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name}: got {value!r}, expected a name")
    return value


def _settings(name: str, value: object) -> FrozenDict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{name}: got {value!r}, expected a mapping of names to values")
    frozen: FrozenDict[str, Any] = freeze({key: _to_tuple(item) for key, item in value.items()})
    return frozen


_NON_NEGATIVE = partial(_number, low=0.0)
_POSITIVE = partial(_number, low=0.0, inclusive=False)
_FRACTION = partial(_number, low=0.0, high=1.0)
_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "env_id": _text,
    "env_kwargs": _settings,
    "memory": _text,
    "memory_config": _settings,
    "encoder": checks.integers,
    "actor_torso": checks.integers,
    "critic_torso": checks.integers,
    "activation": _text,
    "critic_memory": partial(checks.one_of, choices=get_args(CriticMemory)),
    "precision": partial(checks.one_of, choices=get_args(Precision)),
    "total_steps": _whole,
    "num_envs": _whole,
    "num_steps": _whole,
    "num_epochs": _whole,
    "num_minibatches": _whole,
    "learning_rate": _POSITIVE,
    "anneal_learning_rate": checks.boolean,
    "adam_eps": _POSITIVE,
    "max_grad_norm": lambda name, value: None if value is None else _POSITIVE(name, value),
    "gamma": _FRACTION,
    "gae_lambda": _FRACTION,
    "clip_range": _POSITIVE,
    "clip_value_loss": checks.boolean,
    "normalize_advantages": checks.boolean,
    "entropy_coef": _NON_NEGATIVE,
    "value_coef": _NON_NEGATIVE,
    "normalize_observations": checks.boolean,
    "normalize_rewards": checks.boolean,
}


def _to_tuple(value: Any) -> Any:
    return tuple(_to_tuple(item) for item in value) if isinstance(value, list | tuple) else value


def _to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _to_json(item) for key, item in value.items()}
    return [_to_json(item) for item in value] if isinstance(value, tuple) else value
