"""Action spaces as plain data, and the distributions over them that a jitted trainer needs.

A network's actor head emits one array per step, ``inputs (..., K)``, whatever the space; ``distribution``
gives it meaning. The torch frameworks bring distributions of their own and read the same arrays.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from s5_adapters.core.checks import integer, integers
from s5_adapters.core.shapes import Float, Int


@dataclass(frozen=True)
class Discrete:
    """Actions 0 .. n-1. ``inputs``: n logits.

    Attributes:
        n: number of actions.

    """

    n: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", integer("Discrete.n", self.n))

    @property
    def num_inputs(self) -> int:
        """K, the width of the actor head."""
        return self.n


@dataclass(frozen=True)
class MultiDiscrete:
    """Vectors of independent discrete actions. ``inputs``: the logits of each, one after another.

    Attributes:
        nvec: number of choices of each component.

    """

    nvec: tuple[int, ...]

    def __post_init__(self) -> None:
        nvec = integers("MultiDiscrete.nvec", self.nvec)
        if not nvec:
            raise ValueError("MultiDiscrete.nvec: got no components, expected at least one")
        object.__setattr__(self, "nvec", nvec)

    @property
    def num_inputs(self) -> int:
        """K, the width of the actor head."""
        return sum(self.nvec)


@dataclass(frozen=True)
class Box:
    """Real vectors with bounds. ``inputs``: the means, then the logarithms of the standard deviations.

    The distribution is an unbounded diagonal Gaussian in the environment's units; who steps the environment
    clips to the bounds.

    Attributes:
        low: lower bound of each component, -inf for none.
        high: upper bound of each component, inf for none.

    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        low, high = tuple(map(float, self.low)), tuple(map(float, self.high))
        if not low or len(low) != len(high) or not all(a < b for a, b in zip(low, high, strict=True)):
            raise ValueError(
                f"Box: got low {low} and high {high}, expected equally many bounds with low < high"
            )
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    @property
    def num_inputs(self) -> int:
        """K: a mean and a log standard deviation for each component."""
        return 2 * len(self.low)


ActionSpec = Discrete | MultiDiscrete | Box


class Distribution(ABC):
    """A batch of distributions over actions, one for each leading index of its inputs."""

    @abstractmethod
    def sample(self, key: Array) -> Array:
        """Draw one action each.

        Args:
            key: a typed key, as ``jax.random.key`` makes it.

        Returns:
            ``(...)`` int32 of a ``Discrete``, ``(..., len(nvec))`` int32 of a ``MultiDiscrete``, ``(..., n)``
            float32 of a ``Box`` of n components, not clipped to its bounds.

        """

    @abstractmethod
    def mode(self) -> Array:
        """Return the most likely action of each, in ``sample``'s shape and dtype."""

    @abstractmethod
    def log_prob(self, action: Array) -> Float[Array, "*batch"]:
        """Return the log-probability (or log-density) of one action each, ``(...)``."""

    @abstractmethod
    def entropy(self) -> Float[Array, "*batch"]:
        """Return the entropy of each in nats, ``(...)``."""


@struct.dataclass
class Categorical(Distribution):
    """Actions ``(...)`` int32 with unnormalised log-probabilities ``logits (..., n)``."""

    logits: Array

    def sample(self, key: Array) -> Int[Array, "*batch"]:
        """Draw by the Gumbel trick."""
        return jax.random.categorical(key, self.logits).astype(jnp.int32)

    def mode(self) -> Int[Array, "*batch"]:
        """Return the action with the largest logit, the first of equals."""
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    def log_prob(self, action: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Return the normalised logit of ``action (...)``."""
        log_probs = jax.nn.log_softmax(self.logits)
        return jnp.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]

    def entropy(self) -> Float[Array, "*batch"]:
        """Return the entropy; an action of probability 0 adds nothing."""
        log_probs = jax.nn.log_softmax(self.logits)
        probs = jnp.exp(log_probs)
        return -jnp.sum(jnp.where(probs > 0, probs * log_probs, 0.0), axis=-1)


@struct.dataclass
class MultiCategorical(Distribution):
    """Actions ``(..., len(nvec))`` int32, the components independent of each other."""

    parts: tuple[Categorical, ...]

    def sample(self, key: Array) -> Int[Array, "*batch n"]:
        """Draw every component."""
        keys = jax.random.split(key, len(self.parts))
        return jnp.stack([part.sample(k) for part, k in zip(self.parts, keys, strict=True)], axis=-1)

    def mode(self) -> Int[Array, "*batch n"]:
        """Return every component's most likely action."""
        return jnp.stack([part.mode() for part in self.parts], axis=-1)

    def log_prob(self, action: Int[Array, "*batch n"]) -> Float[Array, "*batch"]:
        """Sum the components' log-probabilities."""
        terms = [part.log_prob(action[..., i]) for i, part in enumerate(self.parts)]
        return jnp.sum(jnp.stack(terms), axis=0)

    def entropy(self) -> Float[Array, "*batch"]:
        """Sum the components' entropies."""
        return jnp.sum(jnp.stack([part.entropy() for part in self.parts]), axis=0)


@struct.dataclass
class DiagonalGaussian(Distribution):
    """Actions ``(..., n)`` float32 with ``mean`` and ``log_std``, each ``(..., n)``."""

    mean: Array
    log_std: Array

    def sample(self, key: Array) -> Float[Array, "*batch n"]:
        """Draw; the result may lie outside the environment's bounds."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(self.log_std) * noise

    def mode(self) -> Float[Array, "*batch n"]:
        """Return the mean."""
        return self.mean

    def log_prob(self, action: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
        """Sum the components' log-densities."""
        deviation = (action - self.mean) * jnp.exp(-self.log_std)
        terms = -0.5 * jnp.square(deviation) - self.log_std - 0.5 * math.log(2.0 * math.pi)
        return jnp.sum(terms, axis=-1)

    def entropy(self) -> Float[Array, "*batch"]:
        """Sum the components' differential entropies."""
        return jnp.sum(self.log_std + 0.5 * math.log(2.0 * math.pi * math.e), axis=-1)


def distribution(action: ActionSpec, inputs: Float[Array, "*batch K"]) -> Distribution:
    """Read an actor head's output.

    Args:
        action: the action space.
        inputs: ``(..., action.num_inputs)`` float32.

    Returns:
        A distribution whose batch shape is ``inputs.shape[:-1]``.

    Raises:
        ValueError: ``inputs`` has another width than the action space asks for.

    """
    if inputs.shape[-1] != action.num_inputs:
        raise ValueError(
            f"inputs: got shape {inputs.shape}, expected (..., {action.num_inputs}) for {action}"
        )
    match action:
        case Discrete():
            return Categorical(inputs)
        case MultiDiscrete(nvec):
            ends = [sum(nvec[: i + 1]) for i in range(len(nvec) - 1)]
            return MultiCategorical(tuple(Categorical(part) for part in jnp.split(inputs, ends, axis=-1)))
        case Box():
            mean, log_std = jnp.split(inputs, 2, axis=-1)
            return DiagonalGaussian(mean, log_std)
