"""From a policy's keyword arguments, S5's own and `MlpLstmPolicy`'s, to a memory and a `critic_memory`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from torch import nn

from s5_adapters.core import ActorCriticConfig, Memory, make_memory
from s5_adapters.core.memories.defaults import complete
from s5_adapters.core.memories.memory import memory_class
from s5_adapters.core.network.config import CRITIC_MEMORIES

__all__ = [
    "ACTIVATION_NAMES",
    "DEFAULT_CRITIC_MEMORY",
    "NetworkArguments",
    "RefusedArgument",
    "critic_topology",
]

DEFAULT_CRITIC_MEMORY = "shared"

ACTIVATION_NAMES: dict[type[nn.Module], str] = {
    nn.Tanh: "tanh",
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.ELU: "elu",
    nn.GELU: "gelu",
}
"""torch's activation classes that the core computes; torsos with any other are computed by torch."""


class RefusedArgument(ValueError, AssertionError):
    """What SB3 refuses by an assertion, and this project by a `ValueError`: caught as either."""


@dataclass(frozen=True, kw_only=True)
class NetworkArguments:
    """The network as a policy's arguments say it, S5's own and `MlpLstmPolicy`'s: None where nothing is said.

    Attributes:
        memory: a name of the registry.
        d_model: width; `lstm_hidden_size` says the same and also sets S5's state size.
        n_layers: layers; `n_lstm_layers` says the same.
        lstm_kwargs: must be None.
        memory_config: the memory's other arguments.

    The others are `S5Policy`'s.
    """

    memory: str | None = None
    d_model: int | None = None
    n_layers: int | None = None
    lstm_hidden_size: int | None = None
    n_lstm_layers: int | None = None
    lstm_kwargs: dict[str, Any] | None = None
    memory_config: Mapping[str, Any] = field(default_factory=dict)
    encoder: tuple[int, ...] | None = None
    net_arch: list[int] | dict[str, list[int]] | None = None
    activation_fn: type[nn.Module] = nn.Tanh
    features_extractor_kwargs: dict[str, Any] | None = None
    critic_memory: str | None = None
    shared_lstm: bool | None = None
    enable_critic_lstm: bool | None = None

    def filled_from(self, network: ActorCriticConfig) -> Self:
        """Return them with a network's values where nothing is said (for `activation_fn`: its default)."""
        filled: dict[str, Any] = {}

        def fill(name: str, value: Any, *synonyms: str) -> None:
            if all(getattr(self, synonym) is None for synonym in (name, *synonyms)):
                filled[name] = value

        fill("memory", network.memory)
        fill("encoder", network.encoder)
        fill("critic_memory", network.critic_memory, "shared_lstm", "enable_critic_lstm")
        fill("net_arch", {"pi": list(network.actor_torso), "vf": list(network.critic_torso)})
        if self.activation_fn is nn.Tanh:
            classes = {name: cls for cls, name in ACTIVATION_NAMES.items()}
            filled["activation_fn"] = classes[network.activation]
        if network.is_image:
            kwargs = self.features_extractor_kwargs or {}
            filled["features_extractor_kwargs"] = {"features_dim": network.cnn_features, **kwargs}
        if self.memory in (None, network.memory):
            own = dict(network.memory_config)
            fill("d_model", own.pop("d_model"), "lstm_hidden_size")
            fill("n_layers", own.pop("n_layers"), "n_lstm_layers")
            filled["memory_config"] = {**own, **self.memory_config}
        return replace(self, **filled)

    def make_memory(self) -> Memory:
        """Make the memory that they describe; what is left out is completed by the core's defaults.

        Raises:
            TypeError: `lstm_kwargs`, which means nothing to another memory than torch's LSTM.
            ValueError: two words for one size that disagree, or what the memory refuses.
        """
        if self.lstm_kwargs is not None:
            raise TypeError(
                "lstm_kwargs is for torch's LSTM and means nothing to S5Policy (got "
                f"{self.lstm_kwargs}): leave it out"
            )
        name = self.memory or "s5"
        known = [one.name for one in fields(memory_class(name))]
        for argument in self.memory_config:
            if argument not in known:
                near = difflib.get_close_matches(
                    argument, [*known, "memory", "encoder", "critic_memory"], n=3
                )
                hint = f"did you mean {' or '.join(near)}?" if near else f"it takes {', '.join(known)}"
                raise ValueError(f"S5Policy: unknown argument {argument!r} for memory {name!r}; {hint}")
        sizes = {
            "d_model": _one_of("d_model", self.d_model, "lstm_hidden_size", self.lstm_hidden_size),
            "n_layers": _one_of("n_layers", self.n_layers, "n_lstm_layers", self.n_lstm_layers),
        }
        said = {size: value for size, value in sizes.items() if value is not None}
        return make_memory(name, **complete(name, {**said, **self.memory_config}))


def critic_topology(
    critic_memory: str | None,
    shared_lstm: bool | None,
    enable_critic_lstm: bool | None,
    *,
    share_features_extractor: bool,
) -> str:
    """Name the core's `critic_memory` for what was said, in the core's words or in `MlpLstmPolicy`'s.

    Nothing said is the measured default, or "separate" where actor and critic have features of their own.

    Raises:
        AssertionError: as SB3: `shared_lstm=True` with `enable_critic_lstm` unset or True; a shared memory
            without a shared features extractor.
        ValueError: both vocabularies at once, or an unknown name.
    """
    said = {"shared_lstm": shared_lstm, "enable_critic_lstm": enable_critic_lstm}
    in_sb3s_words = {name: value for name, value in said.items() if value is not None}
    if critic_memory is not None:
        if in_sb3s_words:
            raise ValueError(f"say critic_memory={critic_memory!r} or {in_sb3s_words}, not both")
        if critic_memory not in CRITIC_MEMORIES:
            raise ValueError(f"critic_memory: got {critic_memory!r}, expected {', '.join(CRITIC_MEMORIES)}")
        topology = critic_memory
    elif not in_sb3s_words:
        topology = DEFAULT_CRITIC_MEMORY if share_features_extractor else "separate"
    else:
        enabled = True if enable_critic_lstm is None else enable_critic_lstm
        assert not (shared_lstm and enabled), (
            "shared_lstm=True goes with enable_critic_lstm=False: choose a shared memory or a separate one"
        )
        topology = "shared_detached" if shared_lstm else "separate" if enabled else "none"
    assert share_features_extractor or not topology.startswith("shared"), (
        f"critic_memory {topology!r} needs share_features_extractor=True: one memory reads one input"
    )
    return topology


def _one_of(name: str, value: int | None, alias: str, other: int | None) -> int | None:
    if value is not None and other is not None and value != other:
        raise ValueError(f"{name}={value} and {alias}={other} are two words for one size: give one of them")
    return other if value is None else value
