"""An environment whose chance is scripted, so that recorded episodes can go through ``step`` itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
from flax import struct

from s5_envs import spaces
from s5_envs.base import Environment, EnvParams, OwnEnvironment
from s5_envs.interface import PyTree


@struct.dataclass
class ScriptState:
    """State of ``Scripted``."""

    inner: PyTree  # the environment's state
    first: PyTree  # the environment's state at the beginning of this episode, where a restart returns to
    draw: PyTree  # what chance is to decide in the next step: set it before every step
    reached: PyTree  # the environment's state that the last step led to, an automatic reset or not


@dataclass(frozen=True)
class Scripted(Environment[ScriptState, PyTree, PyTree]):
    """``env`` with its draws taken from the state; an episode that ends begins again as it began.

    Everything else, the automatic reset included, is the ``step`` that users run.
    """

    env: OwnEnvironment

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

    def begin(self, hidden: PyTree, draw: PyTree, params: EnvParams) -> ScriptState:
        """Return the state at the beginning of the episode that ``hidden`` determines."""
        first = self.env.start(hidden, params)
        return ScriptState(inner=first, first=first, draw=draw, reached=first)

    def draw(self, words: jax.Array, state: ScriptState, params: EnvParams) -> PyTree:
        """Return the scripted draw."""
        return state.draw

    def transition(
        self, state: ScriptState, action: jax.Array, draw: PyTree, params: EnvParams
    ) -> tuple[ScriptState, jax.Array, jax.Array]:
        """Apply the environment's rules."""
        inner, reward, terminated = self.env.transition(state.inner, action, draw, params)
        return replace(state, inner=inner, reached=inner), reward, terminated

    def restart(self, words: jax.Array, state: ScriptState, params: EnvParams) -> ScriptState:
        """Begin the same episode again."""
        return replace(state, inner=state.first)

    def is_truncated(self, state: ScriptState, params: EnvParams) -> jax.Array:
        """Ask the environment."""
        return self.env.is_truncated(state.inner, params)

    def get_obs(
        self, state: ScriptState, params: EnvParams | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Return what the environment shows."""
        return self.env.get_obs(state.inner, params)

    def observation_space(self, params: EnvParams | None = None) -> spaces.Space:
        """Return the environment's."""
        return self.env.observation_space(params)

    def action_space(self, params: EnvParams | None = None) -> spaces.ArraySpace:
        """Return the environment's."""
        return self.env.action_space(params)
