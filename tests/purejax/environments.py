"""Small environments whose values are known, and what registers them for ``s5_envs.make``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

import s5_envs


@struct.dataclass
class BitState:
    bit: jax.Array  # () float32, -1 or 1
    time: jax.Array  # () int32


@struct.dataclass
class BitParams:
    max_steps_in_episode: int = 5


@dataclass(frozen=True)
class HiddenBit(environment.Environment):
    """Shows a bit on an episode's first observation alone; every step then pays 1 if the bit is 1, else 0.

    An episode ends after ``length`` steps, truncated or (``terminates``) terminated or (``both``) both, and
    nothing else about it matters. Where it is only truncated, the value of every observation is that of an
    endless episode: bit / (1 - gamma). The observation is ``(bit or 0, time / length, 1)``.
    """

    length: int = 5
    terminates: bool = False
    both: bool = False
    nan_at: int = -1
    """The step whose reward is not a number; -1 for none."""
    obs_nan_at: int = -1
    """The step that leads to an observation which is not a number; -1 for none."""
    scale: float = 1.0
    """Multiplies the time that is shown, twice: with 1e10 its square overflows, with 1e20 itself."""

    @property
    def default_params(self) -> BitParams:
        return BitParams(max_steps_in_episode=self.length if not self.terminates or self.both else 10**6)

    def reset_env(self, key: jax.Array, params: BitParams) -> tuple[jax.Array, BitState]:
        state = BitState(bit=jax.random.bernoulli(key).astype(jnp.float32), time=jnp.int32(0))
        return self.get_obs(state), state

    def step_env(
        self, key: jax.Array, state: BitState, action: Any, params: BitParams
    ) -> tuple[jax.Array, BitState, jax.Array, jax.Array, dict[str, Any]]:
        time = state.time + 1
        reward = jnp.where(time == self.nan_at, jnp.nan, state.bit)
        terminated = (time >= self.length) & (self.terminates or self.both)
        state = state.replace(time=time)
        return self.get_obs(state), state, reward, terminated, {}

    def get_obs(self, state: BitState, params: Any = None, key: Any = None) -> jax.Array:
        shown = jnp.where(state.time == 0, 2 * state.bit - 1, 0.0)
        shown = jnp.where(state.time == self.obs_nan_at, jnp.nan, shown)
        scale = jnp.float32(self.scale)
        return jnp.stack([shown, state.time / self.length * scale * scale, jnp.float32(1)])

    def action_space(self, params: Any = None) -> spaces.Discrete:
        return spaces.Discrete(2)

    def observation_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(-self.scale, self.scale, (3,))


@dataclass(frozen=True)
class Switches(HiddenBit):
    """The same with two switches of three and two positions: a multi-discrete action."""

    def action_space(self, params: Any = None) -> Any:
        return s5_envs.MultiDiscrete((3, 2))


class Spike(HiddenBit):
    """Pays so much at the thirtieth step that the square of it is infinite."""

    def step_env(
        self, key: jax.Array, state: BitState, action: Any, params: BitParams
    ) -> tuple[jax.Array, BitState, jax.Array, jax.Array, dict[str, Any]]:
        obs, state, reward, terminated, info = super().step_env(key, state, action, params)
        return obs, state, jnp.where(state.time == 30, 1e25, reward), terminated, info


def two_trials() -> s5_envs.Trials:
    return s5_envs.Trials(HiddenBit(length=3), num_trials=2)


ENVIRONMENTS = {"HiddenBit": HiddenBit, "Switches": Switches, "Spike": Spike, "TwoTrials": two_trials}
for name, factory in ENVIRONMENTS.items():
    if name not in s5_envs.registered_ids():
        s5_envs.register(name, factory)
