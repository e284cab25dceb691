"""Rewards, and what an agent that adapts within an episode must see of them and of trials' ends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from s5_envs import spaces
from s5_envs.in_context.trials import Trials
from s5_envs.interface import Step, jitted
from s5_envs.wrappers import Wrapper, layers


@dataclass(frozen=True)
class ScaleReward(Wrapper):
    """Multiplies rewards, so that tasks whose rewards differ in size can be learned together.

    Args:
        env: any gymnax 1.x environment, wrapped or not.
        scale: what rewards are multiplied by.

    Raises:
        ValueError: a scale that is not positive.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the configuration."""
        if not 0 < self.scale < math.inf:
            raise ValueError(f"ScaleReward: scale must be positive, got {self.scale!r}")

    def step(self, key: jax.Array, state: Any, action: Any, params: Any = None) -> Step:
        """Take one step; the reward is float32."""
        obs, state, reward, *rest = self.env.step(key, state, action, params)
        return obs, state, jnp.asarray(reward, jnp.float32) * np.float32(self.scale), *rest


@dataclass(frozen=True)
class Appended(Wrapper):
    """The base of wrappers that append one number of the last step: ``[obs, number]``, flat float32.

    An episode's first observation has 0 there. ``info["final_observation"]`` has the number of the step
    itself.
    """

    def observation_space(self, params: Any = None) -> spaces.Box:
        """Return the flat Box of the observation and the number."""
        low, high = self._bounds
        parts = [spaces.encoded_space(super().observation_space(params)), spaces.Box(low, high, (1,))]
        return spaces.concatenated(parts)

    @property
    def _bounds(self) -> tuple[float, float]:
        raise NotImplementedError

    def _number(self, reward: jax.Array, info: dict[str, Any]) -> jax.Array:
        """Return the step's number, a scalar."""
        raise NotImplementedError

    def _append(self, obs: Any, number: jax.Array) -> jax.Array:
        encoded = spaces.encode(self._static_spaces()[0], obs)
        return jnp.concatenate([encoded, jnp.asarray(number, jnp.float32).reshape(1)])

    @jitted
    def reset(self, key: jax.Array, params: Any = None) -> tuple[jax.Array, Any]:
        """Begin an episode with 0."""
        obs, state = self.env.reset(key, params)
        return self._append(obs, jnp.float32(0)), state

    @jitted
    def step(self, key: jax.Array, state: Any, action: Any, params: Any = None) -> Step:
        """Take one step and show its number; an automatic reset brings the 0 back."""
        obs, state, reward, terminated, truncated, info = self.env.step(key, state, action, params)
        number = jnp.asarray(self._number(reward, info), jnp.float32)
        info = {**info, "final_observation": self._append(info["final_observation"], number)}
        obs = self._append(obs, jnp.where(terminated | truncated, 0.0, number))
        return obs, state, reward, terminated, truncated, info


@dataclass(frozen=True)
class PreviousReward(Appended):
    """Appends the reward that came with the observation; 0 with an episode's first.

    Around ``Trials`` the first observation of a later trial comes with the last reward of the one before it.
    """

    @property
    def _bounds(self) -> tuple[float, float]:
        return -math.inf, math.inf

    def _number(self, reward: jax.Array, info: dict[str, Any]) -> jax.Array:
        return reward


@dataclass(frozen=True)
class TrialEnd(Appended):
    """Appends 1 where the step that led to the observation ended a trial and the next one began, else 0.

    So a task's later trials begin with a 1, its first one, as any episode, with a 0. The task's end is shown
    to nobody: what is bootstrapped from its ``final_observation`` is the value of going on.

    Args:
        env: ``Trials``, or wrappers around it.

    Raises:
        ValueError: there is no ``Trials`` inside.
    """

    def __post_init__(self) -> None:
        """Check that there are trials."""
        if not any(isinstance(layer, Trials) for layer in layers(self.env)):
            raise ValueError(
                f"TrialEnd: {self.env.name} has no trials; expected Trials(env), or it in wrappers"
            )

    @property
    def _bounds(self) -> tuple[float, float]:
        return 0.0, 1.0

    def _number(self, reward: jax.Array, info: dict[str, Any]) -> jax.Array:
        return jnp.asarray(info["trial_ended"] & ~(info["terminated"] | info["truncated"]))
