"""XLand-MiniGrid's environments, MiniGrid's among them (``pip install 's5-adapters[xland]'``)."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from s5_envs import spaces
from s5_envs.adapt import Adapted, narrow
from s5_envs.base import EnvParams
from s5_envs.dtypes import like, strong
from s5_envs.extras import needed_by
from s5_envs.in_context.renewal import renew
from s5_envs.interface import Step, jitted


@struct.dataclass
class XMiniGridState:
    """State of ``XMiniGrid``."""

    timestep: Any  # XLand-MiniGrid's own
    time: jax.Array  # () int32, steps taken in this episode


@dataclass(frozen=True)
class XMiniGrid:
    """An environment of XLand-MiniGrid behind gymnax 1.x's interface.

    An observation is what the agent sees before it, ``(2 * view_size ** 2,)`` int32: of each cell, row by
    row, its kind and its colour, a ``MultiDiscrete``. An episode terminates where the task is done and is
    truncated at the time limit. In a batch only those environments are reset whose episode has ended.

    Args:
        env_id: its id there, as ``MiniGrid-MemoryS64``.
        settings: what replaces its parameters, by name.
    """

    env_id: str
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """The id."""
        return self.env_id

    @property
    def default_params(self) -> EnvParams:
        """The environment's own time limit."""
        return EnvParams(max_steps_in_episode=int(self._made[1].max_steps))

    @property
    def num_actions(self) -> int:
        """The number of discrete actions."""
        env, params = self._made
        return int(env.num_actions(params))

    def action_space(self, params: Any = None) -> spaces.Discrete:
        """Return the space of actions: forward, right, left, pick up, put down, toggle."""
        return spaces.Discrete(self.num_actions)

    def observation_space(self, params: Any = None) -> spaces.MultiDiscrete:
        """Return the kinds and colours that each cell can have."""
        from xminigrid.core.constants import NUM_COLORS, NUM_TILES

        return spaces.MultiDiscrete((NUM_TILES, NUM_COLORS) * self._made[1].view_size ** 2)

    @jitted
    def reset(self, key: jax.Array, params: Any = None) -> tuple[jax.Array, XMiniGridState]:
        """Begin an episode."""
        state = self._begun(key)
        return _seen(state), state

    @jitted
    def step(self, key: jax.Array, state: XMiniGridState, action: Any, params: Any = None) -> Step:
        """Take one step, with automatic reset."""
        params = self.default_params if params is None else params
        env, own = self._made
        after = env.step(own, state.timestep, jnp.asarray(action, jnp.int32))
        final = jax.tree.map(like, XMiniGridState(after, state.time + 1), state)
        terminated = after.last() & (after.discount == 0)
        truncated = ~terminated & (final.time >= params.max_steps_in_episode)
        info = {"terminated": terminated, "truncated": truncated, "final_observation": _seen(final)}
        begun = renew(self._begun, terminated | truncated, key, final)
        return _seen(begun), begun, jnp.asarray(after.reward, jnp.float32), terminated, truncated, info

    def _begun(self, key: jax.Array) -> XMiniGridState:
        env, own = self._made
        return XMiniGridState(jax.tree.map(strong, env.reset(own, key)), jnp.int32(0))

    @property
    def _made(self) -> tuple[Any, Any]:
        return _made(self.env_id, self.settings)


def make(name: str, **kwargs: Any) -> tuple[Adapted, EnvParams]:
    """Build an environment: ``env, params``; arguments are XLand-MiniGrid's parameters, as ``view_size``.

    Raises:
        ValueError: one line, where XLand-MiniGrid is not installed, for an unknown id or parameter.
    """
    with needed_by(f"xminigrid/{name}", "xland"):
        import xminigrid
    known = xminigrid.registered_environments()
    if name not in known:
        raise ValueError(f"unknown environment 'xminigrid/{name}'; expected one of {', '.join(known)}")
    try:
        env = Adapted(XMiniGrid(name, tuple(sorted(kwargs.items()))))
        return env, env.default_params
    except TypeError:
        with narrow():
            takes = ", ".join(sorted(vars(xminigrid.make(name)[1])))
        raise ValueError(f"xminigrid/{name}: got arguments {kwargs}; it takes: {takes}") from None


@functools.cache
def _made(env_id: str, settings: tuple[tuple[str, Any], ...]) -> tuple[Any, Any]:
    import xminigrid

    with narrow():
        env, params = xminigrid.make(env_id)
    return env, params.replace(**dict(settings))


def _seen(state: XMiniGridState) -> jax.Array:
    return jnp.asarray(state.timestep.observation, jnp.int32).reshape(-1)
