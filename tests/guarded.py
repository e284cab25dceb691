"""An environment whose forbidden actions end the episode, and which takes memory as well as masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

import s5_envs

ACTIONS = 4
LENGTH = 8
UNIFORM = 0.5
"""What the best memoryless player gets on average: of the two allowed actions one is right."""


@struct.dataclass
class State:
    cue: jax.Array  # () int32, the right action
    other: jax.Array  # () int32, the other allowed one
    time: jax.Array  # () int32


@struct.dataclass
class Params:
    max_steps_in_episode: int = LENGTH


@dataclass(frozen=True)
class Guarded(environment.Environment):
    """Shows the right action once, then allows it and one other; it pays 1 / LENGTH a time.

    A forbidden action pays -1 and ends the episode. The observation does not hold the mask.
    """

    @property
    def default_params(self) -> Params:
        return Params()

    def reset_env(self, key: jax.Array, params: Params) -> tuple[Any, State]:
        cue = jax.random.randint(key, (), 0, ACTIONS)
        state = State(cue, self._other(jax.random.fold_in(key, 1), cue), jnp.int32(0))
        return self.get_obs(state), state

    def step_env(
        self, key: jax.Array, state: State, action: Any, params: Params
    ) -> tuple[Any, State, jax.Array, jax.Array, dict[str, Any]]:
        forbidden = ~self._mask(state)[action]
        reward = jnp.where(forbidden, -1.0, (action == state.cue) / LENGTH)
        state = State(state.cue, self._other(key, state.cue), state.time + 1)
        return self.get_obs(state), state, reward, forbidden, {}

    def get_obs(self, state: State, params: Any = None, key: Any = None) -> Any:
        shown = jax.nn.one_hot(jnp.where(state.time == 0, state.cue, -1), ACTIONS)
        return {"action_mask": self._mask(state).astype(jnp.int8), "seen": shown}

    def _mask(self, state: State) -> jax.Array:
        actions = jnp.arange(ACTIONS)
        return (actions == state.cue) | (actions == state.other)

    def _other(self, key: jax.Array, cue: jax.Array) -> jax.Array:
        return (cue + jax.random.randint(key, (), 1, ACTIONS)) % ACTIONS

    def action_space(self, params: Any = None) -> spaces.Discrete:
        return spaces.Discrete(ACTIONS)

    def observation_space(self, params: Any = None) -> spaces.Dict:
        mask = spaces.Box(0, 1, (ACTIONS,), jnp.int8)
        return spaces.Dict({"action_mask": mask, "seen": spaces.Box(0.0, 1.0, (ACTIONS,))})


@dataclass(frozen=True)
class GuardedSwitches(Guarded):
    """Two components of three and two choices: by turns one of the first's is forbidden, and the last one.

    A forbidden choice pays -1 and ends the episode, all else pays nothing.
    """

    def step_env(
        self, key: jax.Array, state: State, action: Any, params: Params
    ) -> tuple[Any, State, jax.Array, jax.Array, dict[str, Any]]:
        mask = self._mask(state)
        forbidden = ~(mask[action[0]] & mask[3 + action[1]])
        state = state.replace(time=state.time + 1)  # type: ignore[attr-defined]
        return self.get_obs(state), state, -forbidden.astype(jnp.float32), forbidden, {}

    def get_obs(self, state: State, params: Any = None, key: Any = None) -> Any:
        shown = jax.nn.one_hot(state.time % 3, ACTIONS)
        return {"action_mask": self._mask(state).astype(jnp.int8), "seen": shown}

    def _mask(self, state: State) -> jax.Array:
        first = jnp.arange(3) != state.time % 3
        return jnp.append(first, jnp.array([True, False]) | (state.time % 2 == 0))

    def action_space(self, params: Any = None) -> Any:
        return s5_envs.MultiDiscrete((3, 2))

    def observation_space(self, params: Any = None) -> spaces.Dict:
        mask = spaces.Box(0, 1, (5,), jnp.int8)
        return spaces.Dict({"action_mask": mask, "seen": spaces.Box(0.0, 1.0, (ACTIONS,))})


for name, factory in {"Guarded": Guarded, "GuardedSwitches": GuardedSwitches}.items():
    if name not in s5_envs.registered_ids():
        s5_envs.register(name, factory)


class GuardedPairs(gymnasium.Env[np.ndarray, np.ndarray]):
    """Two components of three and two choices, one of the first's forbidden by turns; one step of memory."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(0, 1, (3,), np.float32)
        self.action_space = gymnasium.spaces.MultiDiscrete([3, 2])
        self.time = 0
        self.forbidden = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self._obs(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        first, second = self.action_masks()[:3], self.action_masks()[3:]
        is_allowed = bool(first[action[0]] and second[action[1]])
        self.forbidden += not is_allowed
        self.time += 1
        return self._obs(), float(action[1]), not is_allowed, self.time >= LENGTH, {}

    def action_masks(self) -> np.ndarray:
        return np.array([i != self.time % 3 for i in range(3)] + [True, self.time % 2 == 0])

    def _obs(self) -> np.ndarray:
        return np.eye(3, dtype=np.float32)[self.time % 3]
