"""Several families of environments in one batch, alike from outside."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from s5_envs import spaces
from s5_envs.adapt import adapt
from s5_envs.dtypes import strong
from s5_envs.in_context.renewal import FIRST_OWN
from s5_envs.in_context.unit_box import from_unit_box, unit_box
from s5_envs.interface import Step, jitted
from s5_envs.wrappers import FlattenObservation


@dataclass(frozen=True)
class Family:
    """One of the families of a ``MultiTask``.

    Args:
        name: what people call it.
        env: any gymnax 1.x environment, wrapped or not.
        params: its parameters, its time limit among them.
    """

    name: str
    env: Any
    params: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MultiTaskParams:
    """The parameters of a ``MultiTask``."""

    families: tuple[Any, ...]  # those of each family

    def replace(self, **changes: Any) -> MultiTaskParams:
        """Change ``families``; ``max_steps_in_episode`` is a limit for each of them."""
        families = changes.pop("families", self.families)
        limit = changes.pop("max_steps_in_episode", None)
        if limit is not None:
            families = tuple(params.replace(max_steps_in_episode=limit) for params in families)
        return dataclasses.replace(self, families=families, **changes)


@struct.dataclass
class MultiTaskState:
    """State of ``MultiTask``, of one environment alone."""

    family: jax.Array  # () int32, whose episode this is
    env_states: tuple[Any, ...]  # each family's; of those that wait, the first of an episode
    first_obs: jax.Array  # (families, n) float32, what is seen in those


@dataclass(frozen=True)
class MultiTask:
    """Families that share one space of observations and one of actions.

    Observations are flat float32, with zeros behind those of the smaller ones. Box actions are from -1 to
    1, of which a family takes the first ones, stretched to its own bounds; where all families have discrete
    actions, those that a family lacks do what ``action % n`` does. ``info["family"]`` (int32) is the place
    in ``families``; of the families' own entries those remain that all of them have.

    A batch (``reset_batch``, ``step_batch``) is split between the families: each slot is one family's for
    good, and each family steps its own slots and no others. An environment alone (``reset``, ``step``)
    draws a family for each episode; under ``jax.vmap`` it computes every family at every step.

    Args:
        families: at least one, with names of their own, all with Box actions or all with discrete ones.

    Raises:
        ValueError: no families, a name twice, or actions of other kinds.
    """

    families: tuple[Family, ...]

    def __post_init__(self) -> None:
        """Check the families, and flatten what they show."""
        names = [family.name for family in self.families]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"MultiTask: expected families with names of their own, got {names}")
        # What comes from elsewhere computes in 32 bits here, even where x64 is switched on later.
        flat = tuple(
            dataclasses.replace(f, env=_flattened(adapt(f.env, f.params, name=f.name, always=True), f.params))
            for f in self.families
        )
        object.__setattr__(self, "families", flat)
        kinds = {type(space) for space in self._action_spaces}
        if kinds not in ({spaces.Box}, {spaces.Discrete}):
            got = ", ".join(f"{f.name} {space!r}" for f, space in zip(flat, self._action_spaces, strict=True))
            raise ValueError(f"MultiTask: expected Box actions or discrete ones throughout, got {got}")

    @property
    def name(self) -> str:
        """The class's name."""
        return type(self).__name__

    @property
    def default_params(self) -> MultiTaskParams:
        """Each family's parameters."""
        return MultiTaskParams(tuple(family.params for family in self.families))

    @property
    def num_actions(self) -> int:
        """The number of discrete actions, or of an action's components."""
        space = self.action_space()
        return space.n if isinstance(space, spaces.Discrete) else int(space.shape[0])

    def action_space(self, params: Any = None) -> spaces.Discrete | spaces.Box:
        """Return the Box from -1 to 1 of the largest family's size, or the most discrete actions."""
        own = self._action_spaces
        if isinstance(own[0], spaces.Discrete):
            return spaces.Discrete(max(space.n for space in own))
        return unit_box(max(math.prod(space.shape) for space in own))

    def observation_space(self, params: Any = None) -> spaces.Box:
        """Return the flat Box that holds every family's observations."""
        params = self.default_params if params is None else params
        lows, highs = [], []
        for family, own in zip(self.families, params.families, strict=True):
            box = family.env.observation_space(own)
            bounds = (np.broadcast_to(np.asarray(b, np.float32), box.shape) for b in (box.low, box.high))
            low, high = (np.pad(bound, (0, self._width - len(bound))) for bound in bounds)
            lows.append(low)
            highs.append(high)
        return spaces.Box(np.min(lows, axis=0), np.max(highs, axis=0), (self._width,))

    # --- a batch --------------------------------------------------------------------------------------

    def sizes(self, num_envs: int) -> tuple[int, ...]:
        """Return how many of ``num_envs`` environments each family has: equal shares, the first ones one
        more.

        Raises:
            ValueError: fewer environments than families.
        """
        num = len(self.families)
        if num_envs < num:
            raise ValueError(f"MultiTask: {num} families need as many environments or more, got {num_envs}")
        return tuple(num_envs // num + (i < num_envs % num) for i in range(num))

    def families_of(self, num_envs: int) -> np.ndarray:
        """Return each environment's place in ``families``, ``(num_envs,)`` int32, ascending."""
        return np.repeat(np.arange(len(self.families), dtype=np.int32), self.sizes(num_envs))

    def reset_batch(self, keys: jax.Array, params: Any = None) -> tuple[jax.Array, tuple[Any, ...]]:
        """Begin an episode in each environment of a batch.

        Args:
            keys: ``(num_envs,)`` keys.
            params: by default the families' own.

        Returns:
            observations ``(num_envs, n)`` float32, and the families' states, each leading with its share.
        """
        params = self.default_params if params is None else params
        begun = [
            jax.vmap(partial(self._reset_family, i), (0, None))(own_keys, params)
            for i, (own_keys,) in enumerate(self._split(keys))
        ]
        return jnp.concatenate([obs for obs, _ in begun]), tuple(state for _, state in begun)

    def step_batch(self, keys: jax.Array, states: tuple[Any, ...], action: Any, params: Any = None) -> Step:
        """Take one step in each environment of a batch, with automatic reset.

        Args:
            keys: ``(num_envs,)`` keys.
            states: as ``reset_batch`` or the last step gave them.
            action: ``(num_envs, ...)``.
            params: by default the families' own.

        Returns:
            what ``step`` does, all but the states leading with ``num_envs``.
        """
        params = self.default_params if params is None else params
        outs = [
            jax.vmap(partial(self._step_family, i), (0, 0, 0, None))(own_keys, states[i], own_action, params)
            for i, (own_keys, own_action) in enumerate(self._split(keys, action))
        ]
        states = tuple(out[1] for out in outs)
        obs, reward, terminated, truncated, info = jax.tree.map(
            lambda *parts: jnp.concatenate(parts), *[(out[0], *out[2:]) for out in outs]
        )
        return obs, states, reward, terminated, truncated, info

    def _split(self, *batched: jax.Array) -> list[tuple[jax.Array, ...]]:
        """Cut arrays of a batch into the families' shares."""
        sizes = self.sizes(len(batched[0]))
        ends = np.cumsum(sizes)
        return [tuple(x[end - size : end] for x in batched) for size, end in zip(sizes, ends, strict=True)]

    # --- an environment alone -------------------------------------------------------------------------

    @jitted
    def reset(self, key: jax.Array, params: Any = None) -> tuple[jax.Array, MultiTaskState]:
        """Begin an episode of a family drawn by key."""
        params = self.default_params if params is None else params
        # Of every family, as the next episode may be any one's; a step then resets only what it has ended.
        begun = [self._reset_family(i, key, params) for i in range(len(self.families))]
        first_obs = jnp.stack([obs for obs, _ in begun])
        family = self._drawn_family(key)
        states = jax.tree.map(strong, tuple(state for _, state in begun))
        return first_obs[family], MultiTaskState(family, states, first_obs)

    @jitted
    def step(self, key: jax.Array, state: MultiTaskState, action: Any, params: Any = None) -> Step:
        """Take one step, with automatic reset to an episode of a family drawn by key."""
        params = self.default_params if params is None else params
        obs, env_states, reward, terminated, truncated, info = jax.lax.switch(
            state.family, self._branches(params), key, state.env_states, jnp.asarray(action)
        )
        done = terminated | truncated
        # Whose episode ended has begun another, which waits for its turn.
        first_obs = jnp.where(done, state.first_obs.at[state.family].set(obs), state.first_obs)
        family = jnp.where(done, self._drawn_family(key), state.family)
        obs = jnp.where(done, first_obs[family], obs)
        return obs, MultiTaskState(family, env_states, first_obs), reward, terminated, truncated, info

    def _branches(self, params: MultiTaskParams) -> list[Callable[..., Any]]:
        def branch(i: int, key: jax.Array, env_states: tuple[Any, ...], action: jax.Array) -> Any:
            obs, own, *rest = self._step_family(i, key, env_states[i], action, params)
            return obs, (*env_states[:i], jax.tree.map(strong, own), *env_states[i + 1 :]), *rest

        return [partial(branch, i) for i in range(len(self.families))]

    def _drawn_family(self, key: jax.Array) -> jax.Array:
        own = jax.random.fold_in(key, FIRST_OWN - 1)  # other than any wrapper's, which count from FIRST_OWN
        return jax.random.randint(own, (), 0, len(self.families), jnp.int32)

    # --- one family -----------------------------------------------------------------------------------

    def _reset_family(self, i: int, key: jax.Array, params: MultiTaskParams) -> tuple[jax.Array, Any]:
        obs, state = self.families[i].env.reset(key, params.families[i])
        return self._padded(obs), state

    def _step_family(self, i: int, key: jax.Array, state: Any, action: Any, params: MultiTaskParams) -> Step:
        family, space = self.families[i], self._action_spaces[i]
        action = jnp.asarray(action)
        if isinstance(space, spaces.Discrete):
            action = action % space.n
        else:
            action = from_unit_box(space, action[: math.prod(space.shape)])
        obs, state, reward, terminated, truncated, info = family.env.step(
            key, state, action, params.families[i]
        )
        info = {
            **{name: info[name] for name in self._common_info},
            "family": jnp.int32(i),
            "terminated": terminated,
            "truncated": truncated,
            "final_observation": self._padded(info["final_observation"]),
        }
        return self._padded(obs), state, jnp.asarray(reward, jnp.float32), terminated, truncated, info

    @cached_property
    def _common_info(self) -> list[str]:
        """The entries of ``info`` that all families have, in the same shapes and dtypes; found by tracing."""
        infos = []
        for family, space in zip(self.families, self._action_spaces, strict=True):
            key, action = jax.random.key(0), jax.ShapeDtypeStruct(space.shape, space.dtype)
            _, state = jax.eval_shape(family.env.reset, key, family.params)
            info = jax.eval_shape(family.env.step, key, state, action, family.params)[-1]
            infos.append({name: _described(value) for name, value in info.items()})
        own = ("terminated", "truncated", "final_observation", "family")
        return sorted(
            name
            for name, value in infos[0].items()
            if name not in own and all(info.get(name) == value for info in infos)
        )

    def _padded(self, obs: jax.Array) -> jax.Array:
        return jnp.pad(obs, (0, self._width - len(obs)))

    @cached_property
    def _width(self) -> int:
        with jax.ensure_compile_time_eval():
            widths: list[int] = [math.prod(f.env.observation_space(f.params).shape) for f in self.families]
        return max(widths)

    @cached_property
    def _action_spaces(self) -> list[Any]:
        with jax.ensure_compile_time_eval():
            return [family.env.action_space(family.params) for family in self.families]


def _flattened(env: Any, params: Any) -> Any:
    """Wrap the environment where it shows other than a flat float32 Box."""
    space = env.observation_space(params)
    is_flat = isinstance(space, spaces.Box) and len(space.shape) == 1 and space.dtype == jnp.float32
    return env if is_flat else FlattenObservation(env)


def _described(value: Any) -> Any:
    return jax.tree.structure(value), [(x.shape, x.dtype) for x in jax.tree.leaves(value)]
