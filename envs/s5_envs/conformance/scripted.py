"""An environment whose chance is scripted, so that recorded episodes can go through ``step`` itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
from flax import struct

from s5_envs import spaces
from s5_envs.base import Environment, EnvParams


@struct.dataclass
class ScriptState:
    """State of ``Scripted``."""

    inner: Any  # the environment's state
    first: Any  # the environment's state at the beginning of this episode, where a restart returns to
    draw: Any  # what chance is to decide in the next step: set it before every step
    reached: Any  # the environment's state that the last step led to, an automatic reset or not


@dataclass(frozen=True)
class Scripted(Environment):
    """``env`` with its draws taken from the state; an episode that ends begins again as it began.

    Everything else, the automatic reset included, is the ``step`` that users run.
    """

    env: Environment

    draw_words = 0

    @property
    def deal_words(self) -> int:
        """None."""
        return 0

    @property
    def episode_length(self) -> int:
        """The environment's."""
        return self.env.episode_length

    @property
    def name(self) -> str:
        """The environment's."""
        return self.env.name

    def begin(self, hidden: Any, draw: Any, params: EnvParams) -> ScriptState:
        """Return the state at the beginning of the episode that ``hidden`` determines."""
        first = self.env.start(hidden, params)
        return ScriptState(inner=first, first=first, draw=draw, reached=first)

    def draw(self, words: jax.Array, state: ScriptState, params: EnvParams) -> Any:
        """Return the scripted draw."""
        return state.draw

    def transition(
        self, state: ScriptState, action: jax.Array, draw: Any, params: EnvParams
    ) -> tuple[ScriptState, jax.Array, jax.Array]:
        """Apply the environment's rules."""
        inner, reward, terminated = self.env.transition(state.inner, action, draw, params)
        return state.replace(inner=inner, reached=inner), reward, terminated

    def restart(self, words: jax.Array, state: ScriptState, params: EnvParams) -> ScriptState:
        """Begin the same episode again."""
        return state.replace(inner=state.first)

    def is_truncated(self, state: ScriptState, params: EnvParams) -> jax.Array:
        """Ask the environment."""
        return self.env.is_truncated(state.inner, params)

    def get_obs(
        self, state: ScriptState, params: EnvParams | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Return what the environment shows."""
        return self.env.get_obs(state.inner, params)

    def observation_space(self, params: EnvParams | None = None) -> spaces.Space:
        """The environment's."""
        return self.env.observation_space(params)

    def action_space(self, params: EnvParams | None = None) -> spaces.Space:
        """The environment's."""
        return self.env.action_space(params)
