"""The base of every environment: gymnax's interface, with chance separated from the rules.

An episode is split into what chance decides and what the rules make of it:

    hidden = env.deal(words)            chance before the first observation (a board, an initial angle, ...)
    state = env.start(hidden, params)   the episode that begins there
    draw = env.draw(words, state)       chance during one step (the next card, a payout, noise, ...)
    state, reward, terminated = env.transition(state, action, draw, params)
    obs = env.get_obs(state, params)    a pure function of the state

``reset`` and ``step`` feed these with random words; ``s5_envs.conformance`` feeds the very same methods with
the reference's recorded boards and draws.

Randomness is handed over as 32-bit words, not as keys: one ``jax.random.bits`` call a step, for the step
and for the automatic reset together, takes two thirds of the time of splitting the key and drawing from each
part (45 against 72 microseconds for two words in each of 1024 environments on one core).

gymnax builds a fresh episode at every step and selects it where the episode ended, so a restart must cost
O(1). An environment that needs more (a board, a maze) prepares its next episode a little at every step,
carries it in its state, and overrides ``restart``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment

from s5_envs import spaces
from s5_envs.interface import Info, jitted

Obs = jax.Array
RenderMode = Literal["ansi", "rgb_array"]


@struct.dataclass
class EnvState(environment.EnvState):
    """The state of one episode; subclasses add what their rules need."""

    time: jax.Array  # () int32, steps taken in this episode


@struct.dataclass
class EnvParams(environment.EnvParams):
    """Parameters that may vary without compiling anew: the time limit alone."""

    max_steps_in_episode: int = 1


StateT = TypeVar("StateT")
HiddenT = TypeVar("HiddenT")
DrawT = TypeVar("DrawT")


class Environment(environment.Environment[StateT, EnvParams], Generic[StateT, HiddenT, DrawT]):
    """A gymnax 1.x environment with a cheap automatic reset.

    Subclasses are frozen dataclasses whose fields are the difficulty, so two environments of equal
    configuration are equal, hash alike and share one compilation (gymnax's own are told apart by identity).
    They name three types: the state, what ``deal`` draws, and what ``draw`` draws.

    Attributes:
        obs_requires_prev_action: the reference says that the previous action must be seen to play well.
        deal_words: 32-bit random words that ``deal`` uses.
        draw_words: 32-bit random words that ``draw`` uses.
        restart_words: 32-bit random words that ``restart`` uses.
    """

    obs_requires_prev_action: bool = False

    @property
    def draw_words(self) -> int:
        """Random words that ``draw`` uses."""
        return 1

    @property
    def deal_words(self) -> int:
        """Random words that ``deal`` uses."""
        return 1

    @property
    def restart_words(self) -> int:
        """Random words that ``restart`` uses."""
        return self.deal_words

    @property
    def episode_length(self) -> int:
        """The most steps that an episode can take."""
        raise NotImplementedError

    @property
    def reward_range(self) -> tuple[float, float]:
        """The lowest and the highest reward of one step."""
        raise NotImplementedError

    def deal(self, words: jax.Array, params: EnvParams) -> HiddenT:
        """Draw what an episode hides from the player before its first observation.

        Args:
            words: ``(deal_words,)`` uint32, uniformly random.
            params: the environment's parameters.
        """
        raise NotImplementedError

    def start(self, hidden: HiddenT, params: EnvParams) -> StateT:
        """Return the state at the beginning of the episode that ``hidden`` determines."""
        raise NotImplementedError

    def restart(self, words: jax.Array, state: StateT, params: EnvParams) -> StateT:
        """Return the next episode's first state, given the state that ended the last one.

        Called at every step, and its result dropped unless the episode ended. The default deals afresh.

        Args:
            words: ``(restart_words,)`` uint32, uniformly random.
            state: the state after the step, from which a prepared next episode can be taken.
            params: the environment's parameters.
        """
        return self.start(self.deal(words, params), params)

    def draw(self, words: jax.Array, state: StateT, params: EnvParams) -> DrawT:
        """Draw what chance decides in one step.

        Args:
            words: ``(draw_words,)`` uint32, uniformly random.
            state: the state before the step.
            params: the environment's parameters.
        """
        raise NotImplementedError

    def transition(
        self, state: StateT, action: jax.Array, draw: DrawT, params: EnvParams
    ) -> tuple[StateT, jax.Array, jax.Array]:
        """Apply the rules: deterministic given ``draw``.

        Returns:
            the state after the step, the reward (float32 scalar), and whether the episode terminated.
        """
        raise NotImplementedError

    def get_obs(self, state: StateT, params: EnvParams | None = None, key: jax.Array | None = None) -> Obs:
        """Return what the player sees in ``state``."""
        raise NotImplementedError

    def render(
        self, state: StateT, params: EnvParams | None = None, mode: RenderMode = "ansi"
    ) -> str | np.ndarray:
        """Draw one (unbatched) state: a string for ``"ansi"``, ``(H, W, 3)`` uint8 for ``"rgb_array"``."""
        from s5_envs.rendering import render_state

        return render_state(self, state, self.default_params if params is None else params, mode)

    def action_space(self, params: EnvParams | None = None) -> spaces.ArraySpace:
        """Return the space of actions."""
        raise NotImplementedError

    def observation_space(self, params: EnvParams | None = None) -> spaces.Space:
        """Return the space of observations."""
        raise NotImplementedError

    @property
    def default_params(self) -> EnvParams:
        """Parameters with the reference's time limit."""
        return EnvParams(max_steps_in_episode=self.episode_length)

    @property
    def num_actions(self) -> int:
        """The number of discrete actions, or the number of an action's components."""
        space = self.action_space(self.default_params)
        return space.n if isinstance(space, spaces.Discrete) else int(space.shape[0])

    if TYPE_CHECKING:  # gymnax's own, compiled

        def reset(self, key: jax.Array, params: EnvParams | None = None) -> tuple[Obs, StateT]:
            """Begin an episode."""

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[Obs, StateT]:
        """Deal a new episode."""
        state = self.start(self.deal(jax.random.bits(key, (self.deal_words,), jnp.uint32), params), params)
        return self.get_obs(state, params), state

    def step_env(
        self, key: jax.Array, state: StateT, action: jax.Array, params: EnvParams
    ) -> tuple[Obs, StateT, jax.Array, jax.Array, Info]:
        """Take one step without the automatic reset."""
        words = jax.random.bits(key, (self.draw_words,), jnp.uint32)
        state, reward, terminated = self._apply(words, state, action, params)
        return self.get_obs(state, params), state, reward, terminated, {}

    def _advance(
        self, key: jax.Array, state: StateT, action: jax.Array, params: EnvParams
    ) -> tuple[StateT, jax.Array, jax.Array, jax.Array]:
        """Take one step; returns state, reward, terminated and the words left for ``restart``."""
        words = jax.random.bits(key, (self.draw_words + self.restart_words,), jnp.uint32)
        after, reward, terminated = self._apply(words[: self.draw_words], state, action, params)
        return after, reward, terminated, words[self.draw_words :]

    def _apply(
        self, words: jax.Array, state: StateT, action: jax.Array, params: EnvParams
    ) -> tuple[StateT, jax.Array, jax.Array]:
        draw = self.draw(words, state, params)
        after, reward, terminated = self.transition(state, action, draw, params)
        # With x64 switched on sums and Python's numbers are 64 bits wide; a state must stay what it was.
        after = jax.tree.map(lambda new, old: jnp.asarray(new, jnp.asarray(old).dtype), after, state)
        return after, jnp.asarray(reward, jnp.float32), terminated

    def final_state(self, key: jax.Array, state: StateT, action: jax.Array, params: EnvParams) -> StateT:
        """Return the state that ``step`` reaches with the same arguments, before any automatic reset."""
        return self._advance(key, state, action, params)[0]

    @jitted
    def step(
        self, key: jax.Array, state: StateT, action: jax.Array, params: EnvParams | None = None
    ) -> tuple[Obs, StateT, jax.Array, jax.Array, jax.Array, Info]:
        """Take one step and, where that ended the episode, begin the next one.

        Returns:
            ``obs, state, reward, terminated, truncated, info``. After the end of an episode ``obs`` and
            ``state`` are the next episode's first; ``info["final_observation"]`` is always the one that the
            step itself led to.
        """
        if params is None:
            params = self.default_params
        final_state, reward, terminated, words = self._advance(key, state, action, params)
        truncated = self.is_truncated(final_state, params)
        next_state = self.restart(words, final_state, params)
        done = terminated | truncated
        state = jax.tree.map(lambda new, old: jnp.where(done, new, old), next_state, final_state)
        info = {
            "terminated": terminated,
            "truncated": truncated,
            "final_observation": self.get_obs(final_state, params),
        }
        return self.get_obs(state, params), state, reward, terminated, truncated, info


OwnEnvironment: TypeAlias = Environment[Any, Any, Any]
"""Any environment of this package, unwrapped."""
