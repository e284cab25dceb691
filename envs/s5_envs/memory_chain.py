"""MemoryChain: remember a context over a wait (bsuite's memory length and memory size experiments)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from flax import struct

from s5_envs import spaces
from s5_envs.base import Environment, EnvParams, EnvState
from s5_envs.draws import uniform_int


@struct.dataclass
class State(EnvState):
    """MemoryChain between two steps."""

    context: jax.Array  # (num_bits,) int32, the bits to remember
    query: jax.Array  # () int32, which of them is asked for


@dataclass(frozen=True)
class MemoryChain(Environment[State, tuple[jax.Array, jax.Array], None]):
    """Bits are shown once, ``memory_length`` steps later one of them is asked for.

    Observation: ``(num_bits + 2,)`` float32: the share of time left, the query (0 until it is asked, then
    the index of a bit), the bits as -1 and 1 (0 once they are hidden). As in bsuite the observation lags one
    step: an episode shows its first observation twice. Action: ``Discrete(2)``. Reward: 0 until the last
    step, then 1 for the right bit and -1 for the wrong one. The episode terminates after memory_length + 1
    steps.

    gymnax's environment of this id plays by the same rules but states bounds that its observations break,
    and its default limit of 1000 steps ends longer chains before their reward.

    Args:
        memory_length: steps between seeing the bits and being asked.
        num_bits: bits to remember.
    """

    memory_length: int = 5
    num_bits: int = 1

    draw_words = 0

    def __post_init__(self) -> None:
        """Check the configuration."""
        for name in ("memory_length", "num_bits"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"MemoryChain: {name} must be a positive integer, got {value!r}")

    @property
    def name(self) -> str:
        """The id that bsuite's environment has in gymnax."""
        return "MemoryChain-bsuite"

    @property
    def episode_length(self) -> int:
        """The wait and the answer."""
        return self.memory_length + 1

    @property
    def reward_range(self) -> tuple[float, float]:
        """The wrong and the right bit."""
        return -1.0, 1.0

    @property
    def deal_words(self) -> int:
        """One for the query and one for every 32 bits."""
        return 1 + (self.num_bits + 31) // 32

    def deal(self, words: jax.Array, params: EnvParams) -> tuple[jax.Array, jax.Array]:
        """Draw context and query."""
        bits = (words[1:, None] >> jnp.arange(32, dtype=jnp.uint32)) & 1
        return bits.reshape(-1)[: self.num_bits].astype(jnp.int32), uniform_int(words[0], self.num_bits)

    def start(self, hidden: tuple[jax.Array, jax.Array], params: EnvParams) -> State:
        """Begin with the context and the query in ``hidden``."""
        context, query = hidden
        return State(time=jnp.int32(0), context=context, query=query)

    def draw(self, words: jax.Array, state: State, params: EnvParams) -> None:
        """Draw nothing: the rules decide all."""
        return

    def transition(
        self, state: State, action: jax.Array, draw: None, params: EnvParams
    ) -> tuple[State, jax.Array, jax.Array]:
        """Wait, or judge the answer."""
        asked = state.time == self.memory_length
        bit = jnp.where(jnp.arange(self.num_bits) == state.query, state.context, 0).sum()
        reward = jnp.where(asked, jnp.where(action == bit, 1.0, -1.0), 0.0)
        return replace(state, time=state.time + 1), reward, asked

    def is_truncated(self, state: State, params: EnvParams) -> jax.Array:
        """Tell whether ``params`` sets a limit below the chain's own end, and it is reached."""
        return (state.time >= params.max_steps_in_episode) & (state.time < self.episode_length)

    def get_obs(
        self, state: State, params: EnvParams | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Return time left, query and context of one step ago."""
        shown_time = jnp.maximum(state.time - 1, 0)
        left = (self.memory_length - shown_time) / self.memory_length
        query = jnp.where(shown_time == self.memory_length - 1, state.query, 0)
        context = jnp.where(shown_time == 0, 2 * state.context - 1, 0)
        return jnp.concatenate([jnp.stack([left, query]), context]).astype(jnp.float32)

    def observation_space(self, params: EnvParams | None = None) -> spaces.Box:
        """Return the space of time, query and context."""
        low = jnp.concatenate([jnp.zeros(2), -jnp.ones(self.num_bits)])
        high = jnp.concatenate([jnp.array([1.0, max(self.num_bits - 1.0, 1.0)]), jnp.ones(self.num_bits)])
        return spaces.Box(low, high, (self.num_bits + 2,))

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """Return the bits."""
        return spaces.Discrete(2)
