"""An environment that shows what it was given, so that tests can see through wrappers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from s5_envs import spaces
from s5_envs.base import Environment, EnvParams, EnvState
from s5_envs.draws import uniform


@struct.dataclass
class State(EnvState):
    start: jax.Array  # () float32, drawn when the episode began
    action: jax.Array  # (n,) float32, the last action; zeros before


@dataclass(frozen=True)
class Echo(Environment):
    """Shows [start, time, action]; pays its time; terminates after ``length`` steps, truncated at the limit.

    Args:
        length: steps until it terminates.
        num_choices: discrete actions; 0 for a Box from -2 to 4 of shape (3,).
    """

    length: int = 3
    num_choices: int = 0

    draw_words = 0

    @property
    def episode_length(self) -> int:
        return self.length

    def deal(self, words: jax.Array, params: EnvParams) -> jax.Array:
        return uniform(words[0])

    def start(self, hidden: jax.Array, params: EnvParams) -> State:
        return State(time=jnp.int32(0), start=hidden, action=jnp.zeros(self._size))

    def draw(self, words: jax.Array, state: State, params: EnvParams) -> None:
        return

    def transition(self, state: State, action: Any, draw: None, params: EnvParams) -> Any:
        time = state.time + 1
        action = jnp.asarray(action, jnp.float32).reshape(self._size)
        return state.replace(time=time, action=action), time.astype(jnp.float32), time == self.length

    def get_obs(self, state: State, params: Any = None, key: Any = None) -> jax.Array:
        return jnp.concatenate([jnp.stack([state.start, state.time.astype(jnp.float32)]), state.action])

    def observation_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(-10.0, 10.0, (2 + self._size,))

    def action_space(self, params: Any = None) -> spaces.Space:
        return spaces.Discrete(self.num_choices) if self.num_choices else spaces.Box(-2.0, 4.0, (3,))

    @property
    def _size(self) -> int:
        return 1 if self.num_choices else 3
