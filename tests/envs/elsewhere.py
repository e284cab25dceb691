"""Environments as other people write them: gymnax's own class, gymnax 0.x's, none at all, and with faults."""

from __future__ import annotations

import collections
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment

from s5_envs import spaces

LENGTH = 4


@struct.dataclass
class State:
    time: Any
    extra: Any = 0


class Plain(environment.Environment):
    """Ends after ``LENGTH`` steps and pays its time; the observation is made of the time alone."""

    def __init__(self, space: Any = None, action: Any = None):
        self.space = spaces.Box(0.0, 10.0, (3,)) if space is None else space
        self.action = spaces.Discrete(3) if action is None else action

    def observe_time(self, time: jax.Array) -> Any:
        return _value(self.space, time)

    def reset_env(self, key: jax.Array, params: Any) -> tuple[Any, State]:
        return self.observe_time(jnp.int32(0)), State(0)

    def step_env(self, key: jax.Array, state: State, action: Any, params: Any) -> Any:
        time = state.time + 1
        after = state.replace(time=time)
        return self.observe_time(time), after, jnp.float32(time), time >= LENGTH, {}

    @property
    def default_params(self) -> environment.EnvParams:
        return environment.EnvParams(max_steps_in_episode=100)

    def action_space(self, params: Any = None) -> Any:
        return self.action

    def observation_space(self, params: Any) -> Any:
        return self.space


def _value(space: Any, time: jax.Array) -> Any:
    """A value of a space, different at every time."""
    if isinstance(space, spaces.Dict):
        return {name: _value(part, time + i) for i, (name, part) in enumerate(space.spaces.items())}
    if isinstance(space, spaces.Tuple):
        return tuple(_value(part, time + i) for i, part in enumerate(space.spaces))
    if hasattr(space, "nvec"):
        return time % jnp.array(space.nvec)
    if isinstance(space, spaces.Discrete):
        return time % space.n
    return (time + jnp.arange(jnp.zeros(space.shape).size)).reshape(space.shape).astype(space.dtype)


class FiveValues(Plain):
    """gymnax 0.x: ``step`` resets by itself and gives ``obs, state, reward, done, info``."""

    def step(self, key: jax.Array, state: State, action: Any, params: Any = None) -> Any:
        step_key, reset_key = jax.random.split(key)
        obs, after, reward, done, info = self.step_env(step_key, state, action, params)
        first_obs, first = self.reset_env(reset_key, params)
        obs, after = jax.tree.map(lambda a, b: jnp.where(done, a, b), (first_obs, first), (obs, after))
        return obs, after, reward, done, info


class Vendored:
    """An old copy of gymnax, sharing no class with the one installed."""

    def __init__(self) -> None:
        self._env = FiveValues()
        self.default_params = self._env.default_params

    def reset(self, key: jax.Array, params: Any = None) -> Any:
        return self._env.reset_env(key, params)

    def step(self, key: jax.Array, state: State, action: Any, params: Any = None) -> Any:
        return self._env.step(key, state, action, params)

    def action_space(self, params: Any = None) -> Any:
        return collections.namedtuple("Discrete", "n shape")(3, ())

    def observation_space(self, params: Any = None) -> Any:
        return collections.namedtuple("Box", "low high shape dtype")(0.0, 10.0, (3,), jnp.float32)


class Columns(Plain):
    """Rewards, flags and observations of one element more axes than they should have."""

    def observe_time(self, time: jax.Array) -> jax.Array:
        return super().observe_time(time)[None]

    def step(self, key: jax.Array, state: State, action: Any, params: Any = None) -> Any:
        obs, state, reward, terminated, truncated, info = super().step(key, state, action, params)
        flags = (jnp.float32(flag)[None] for flag in (terminated, truncated))
        return obs, state, reward[None], *flags, info


class Faulty(Plain):
    """Does one thing wrong."""

    fault = ""

    def reset(self, key: jax.Array, params: Any = None) -> Any:
        obs, state = super().reset(key, params)
        return {
            "one value of reset": obs,
            "three values of reset": (obs, state, {}),
            "an observation of another shape": (obs[:2], state),
            "an observation that is none": ("seen", state),
            "complex observations": (obs + 1j, state),
        }.get(self.fault, (obs, state))

    def step(self, key: jax.Array, state: State, action: Any, params: Any = None) -> Any:
        obs, after, reward, terminated, truncated, info = super().step(key, state, action, params)
        if self.fault == "an exception":
            raise KeyError("goal")
        return {
            "four values of step": (obs, after, reward, terminated),
            "gymnasium's order": (obs, reward, terminated, truncated, info),
            "a step of another shape": (obs[:2], after, reward, terminated, truncated, info),
            "a state of another dtype": (obs, after.replace(extra=1.5), reward, terminated, truncated, info),
            "a state of another shape": (
                obs,
                after.replace(extra=jnp.zeros(2, int)),
                reward,
                terminated,
                truncated,
                info,
            ),
            "a state of another structure": (obs, (after,), reward, terminated, truncated, info),
            "many rewards": (obs, after, jnp.ones(2), terminated, truncated, info),
            "a complex reward": (obs, after, 1j * reward, terminated, truncated, info),
            "a done of many": (obs, after, reward, jnp.zeros(3, bool), truncated, info),
            "no final observation": (obs, after, reward, terminated, truncated, {}),
            "a final observation of another shape": (
                obs,
                after,
                reward,
                terminated,
                truncated,
                {"final_observation": obs[:1]},
            ),
            "no info": (obs, after, reward, terminated, truncated, None),
        }.get(self.fault, (obs, after, reward, terminated, truncated, info))


FAULTS = {
    "one value of reset": "reset gives a",
    "three values of reset": "reset gives 3 values, expected two: obs, state",
    "an observation of another shape": "reset gives an observation float32[2], expected float32[3]",
    "an observation that is none": "reset fails with TypeError",
    "complex observations": "reset gives an observation complex64[3], expected float32[3]",
    "an exception": "step fails with KeyError: 'goal'",
    "four values of step": "step gives 4 values, expected six: obs, state, reward, terminated, truncated",
    "gymnasium's order": "step gives a state of",
    "a step of another shape": "step gives an observation float32[2], expected float32[3]",
    "a state of another dtype": "step makes state.extra float32[], reset made it int32[]",
    "a state of another shape": "step makes state.extra int32[2], reset made it int32[]",
    "a state of another structure": "step gives a state of",
    "many rewards": "step gives a reward float32[2], expected a float32 scalar",
    "a complex reward": "step gives a reward complex64[], expected a float32 scalar",
    "a done of many": "step gives a terminated bool[3], expected a bool scalar",
    "no final observation": "step's info has no final_observation",
    "a final observation of another shape": "step gives a final_observation float32[1], expected float32[3]",
    "no info": "step gives None for its last value",
}


def faulty(fault: str) -> Plain:
    """An environment with one of ``FAULTS``."""
    env = Faulty()
    env.fault = fault
    return env
