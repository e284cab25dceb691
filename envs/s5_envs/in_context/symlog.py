"""Observations and rewards of any size brought to a common one, sign and order kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from s5_envs import spaces
from s5_envs.interface import Step, jitted
from s5_envs.wrappers import Wrapper


@dataclass(frozen=True)
class Symlog(Wrapper):
    """Shows and pays ``sign(x) log(1 + |x|)`` (Hafner et al. 2023, arXiv 2301.04104) instead of ``x``.

    What ``Trials`` tells inside stays raw.

    Args:
        env: any gymnax 1.x environment, wrapped or not.
        observations: transform them, as flat float32.
        rewards: transform them.

    Raises:
        ValueError: neither is to be transformed.
    """

    observations: bool = True
    rewards: bool = True

    def __post_init__(self) -> None:
        """Check that there is something to do."""
        if not (self.observations or self.rewards):
            raise ValueError("Symlog: got observations=False and rewards=False, expected one of them True")

    def observation_space(self, params: Any = None) -> spaces.Space:
        """Return the flat Box of transformed observations."""
        space = super().observation_space(params)
        if not self.observations:
            return space
        box = spaces.encoded_space(space)
        low, high = (np.sign(b) * np.log1p(np.abs(np.asarray(b, np.float64))) for b in (box.low, box.high))
        # A little is left for rounding.
        return spaces.Box(low - 1e-5 * np.abs(low), high + 1e-5 * np.abs(high), box.shape)

    @jitted
    def reset(self, key: jax.Array, params: Any = None) -> tuple[Any, Any]:
        """Begin an episode."""
        obs, state = self.env.reset(key, params)
        return self._shown(obs), state

    @jitted
    def step(self, key: jax.Array, state: Any, action: Any, params: Any = None) -> Step:
        """Take one step."""
        obs, state, reward, terminated, truncated, info = self.env.step(key, state, action, params)
        if self.rewards:
            reward = symlog(jnp.asarray(reward, jnp.float32))
        info = {**info, "final_observation": self._shown(info["final_observation"])}
        return self._shown(obs), state, reward, terminated, truncated, info

    def _shown(self, obs: Any) -> Any:
        return symlog(spaces.encode(self._static_spaces()[0], obs)) if self.observations else obs


def symlog(x: jax.Array) -> jax.Array:
    """Return ``sign(x) log(1 + |x|)``."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))
