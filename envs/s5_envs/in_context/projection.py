"""A random projection of observations and actions, another one for every task."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from s5_envs import spaces
from s5_envs.in_context.renewal import own_key, renew
from s5_envs.in_context.unit_box import from_unit_box, unit_box
from s5_envs.interface import Step, jitted
from s5_envs.wrappers import StatefulWrapper

Distribution = Literal["orthogonal", "normal"]


@struct.dataclass
class ProjectionState:
    """State of ``RandomProjection``; the matrices are this episode's."""

    env_state: Any  # the wrapped environment's
    obs_matrix: jax.Array | None  # (obs_dim, n) float32, n numbers of the wrapped environment's observation
    action_matrix: jax.Array | None  # (m, action_dim) float32; of discrete actions (n,) int32, a permutation


@dataclass(frozen=True)
class RandomProjection(StatefulWrapper):
    """Shows observations, and takes actions, through linear maps that are drawn anew for every episode.

    With ``obs_dim`` the observation, flat float32 ``(n,)``, becomes ``M_o obs``, ``(obs_dim,)`` float32. With
    ``action_dim`` a Box of m numbers becomes a Box of ``(action_dim,)`` from -1 to 1, and ``M_a action`` is
    clipped to [-1, 1] and stretched to the environment's bounds (unbounded components are left as ``M_a
    action`` says); of ``action_dim`` discrete actions a random order is drawn.

    The maps are drawn by key when an episode begins, and only then, and stay what they are until it ends. An
    episode is whatever the wrapped environment says: around ``Trials`` it is the whole task.

    Args:
        env: any gymnax 1.x environment with Box or discrete observations, wrapped or not.
        obs_dim: numbers that are shown; None leaves the observation alone.
        action_dim: numbers of an action; for n discrete actions n; None leaves the action alone.
        distribution: ``"orthogonal"``: uniformly random, with orthonormal rows or columns, whichever are
            fewer, times the scale. ``"normal"``: independent entries of the same variance, ``scale**2 /
            max(rows, columns)``, and mean 0.
        obs_scale: the scale of ``M_o``.
        action_scale: the scale of ``M_a``.

    Raises:
        ValueError: for dimensions that are not positive integers, another number than that of the discrete
            actions, multi-discrete actions, an unknown distribution or a scale that is not positive.
    """

    obs_dim: int | None = None
    action_dim: int | None = None
    distribution: Distribution = "orthogonal"
    obs_scale: float = 1.0
    action_scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the configuration."""
        for name in ("obs_dim", "action_dim"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(
                    f"RandomProjection: {name} must be a positive integer or None, got {value!r}"
                )
        if self.distribution not in get_args(Distribution):
            known = ", ".join(get_args(Distribution))
            raise ValueError(
                f"RandomProjection: distribution must be one of {known}, got {self.distribution!r}"
            )
        for name in ("obs_scale", "action_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"RandomProjection: {name} must be positive, got {getattr(self, name)!r}")
        _, space = self._static_spaces()
        if self.action_dim is None or isinstance(space, spaces.Box):
            return
        if not isinstance(space, spaces.Discrete):
            raise ValueError(
                f"RandomProjection: {self.env.name} has actions {space!r}, expected Box or Discrete "
                "(FlattenAction makes one discrete action of several)"
            )
        if self.action_dim != space.n:
            raise ValueError(
                f"RandomProjection: {self.env.name} has {space.n} discrete actions, of which an order is "
                f"drawn: action_dim must be {space.n} or None, got {self.action_dim}"
            )

    @property
    def num_actions(self) -> int:
        """The number of discrete actions, or of an action's components."""
        return super().num_actions if self.action_dim is None else self.action_dim

    def action_space(self, params: Any = None) -> spaces.Space:
        """Return the Box of actions before their projection; discrete actions stay what they are."""
        space = super().action_space(params)
        if self.action_dim is None or isinstance(space, spaces.Discrete):
            return space
        return unit_box(self.action_dim)

    def observation_space(self, params: Any = None) -> spaces.Space:
        """Return the Box of projected observations, as wide as they can get."""
        space = super().observation_space(params)
        if self.obs_dim is None:
            return space
        box = spaces.encoded_space(space)
        sizes = np.maximum(*(np.abs(np.asarray(b, np.float64)) for b in (box.low, box.high)))
        # A row of an orthogonal matrix is no longer than 1; a little is left for rounding.
        bound = 1.0001 * self.obs_scale * float(np.linalg.norm(np.broadcast_to(sizes, box.shape)))
        if self.distribution == "normal" or bound > float(np.finfo(np.float32).max):
            bound = math.inf
        return spaces.Box(-bound, bound, (self.obs_dim,))

    def unwrapped_action(self, action: Any, state: ProjectionState) -> Any:
        """Return what the innermost environment is given."""
        return super().unwrapped_action(self._projected_action(state, action), state)

    @jitted
    def reset(self, key: jax.Array, params: Any = None) -> tuple[Any, ProjectionState]:
        """Begin an episode behind new projections."""
        obs, env_state = self.env.reset(key, params)
        obs_matrix, action_matrix = self._draw(own_key(self, key))
        state = ProjectionState(env_state, obs_matrix, action_matrix)
        return self._projected_obs(state.obs_matrix, obs), state

    @jitted
    def step(self, key: jax.Array, state: ProjectionState, action: Any, params: Any = None) -> Step:
        """Take one step; an automatic reset draws new projections."""
        obs, env_state, reward, terminated, truncated, info = self.env.step(
            key, state.env_state, self._projected_action(state, action), params
        )
        obs_matrix, action_matrix = renew(
            lambda key: self._draw(own_key(self, key)),
            jnp.asarray(terminated | truncated, bool),
            key,
            (state.obs_matrix, state.action_matrix),
        )
        info = {
            **info,
            "final_observation": self._projected_obs(state.obs_matrix, info["final_observation"]),
        }
        obs = self._projected_obs(obs_matrix, obs)
        return obs, ProjectionState(env_state, obs_matrix, action_matrix), reward, terminated, truncated, info

    def _draw(self, key: jax.Array) -> tuple[jax.Array | None, jax.Array | None]:
        obs_space, action_space = self._static_spaces()
        obs_matrix = action_matrix = None
        obs_shape: tuple[int, ...] = (0, 0)
        action_shape: tuple[int, ...] = (0, 0)
        if self.obs_dim is not None:
            obs_shape = (self.obs_dim, *spaces.encoded_space(obs_space).shape)
        if self.action_dim is not None and isinstance(action_space, spaces.Discrete):
            key, order_key = jax.random.split(key)
            action_matrix = jax.random.permutation(order_key, jnp.arange(self.action_dim, dtype=jnp.int32))
        elif self.action_dim is not None:
            assert isinstance(action_space, spaces.Box)
            action_shape = (math.prod(action_space.shape), self.action_dim)
        # Drawn together, as every call of a random function is a good part of what compiling takes.
        num_obs = math.prod(obs_shape)
        numbers = jax.random.normal(key, (num_obs + math.prod(action_shape),), jnp.float32)
        if self.obs_dim is not None:
            obs_matrix = self._matrix(numbers[:num_obs].reshape(obs_shape), self.obs_scale)
        if action_matrix is None and self.action_dim is not None:
            action_matrix = self._matrix(numbers[num_obs:].reshape(action_shape), self.action_scale)
        return obs_matrix, action_matrix

    def _matrix(self, numbers: jax.Array, scale: float) -> jax.Array:
        """Make a matrix of as many standard normal numbers."""
        rows, columns = numbers.shape
        if self.distribution == "normal":
            return numbers * np.float32(scale / math.sqrt(max(rows, columns)))
        if rows <= columns:
            return orthonormal_rows(numbers) * np.float32(scale)
        return orthonormal_rows(numbers.T).T * np.float32(scale)

    def _projected_obs(self, matrix: jax.Array | None, obs: Any) -> Any:
        if matrix is None:
            return obs
        # Written out first: fused, every row of the matrix would compute the environment's step again.
        encoded = jax.lax.optimization_barrier(spaces.encode(self._static_spaces()[0], obs))
        return _times(matrix, encoded)

    def _projected_action(self, state: ProjectionState, action: Any) -> Any:
        if state.action_matrix is None:
            return action
        _, space = self._static_spaces()
        if isinstance(space, spaces.Discrete):
            return state.action_matrix[jnp.asarray(action)]
        assert isinstance(space, spaces.Box)
        action = jnp.clip(jnp.asarray(action, jnp.float32), -1.0, 1.0)
        return from_unit_box(space, _times(state.action_matrix, action))


def orthonormal_rows(numbers: jax.Array) -> jax.Array:
    """Make the rows of a matrix orthonormal; of independent standard normal numbers, uniformly so (Haar).

    Gram and Schmidt's way, each row twice for float32's sake, as several batched QR decompositions in one
    program can wait for one another for ever on two CPU cores (jaxlib 0.10.2).

    Args:
        numbers: ``(rows, columns)`` float32, ``rows <= columns``.
    """

    def add_row(i: jax.Array, made: jax.Array) -> jax.Array:
        row = numbers[i]
        for _ in range(2):  # the rows to come are zeros yet, and take nothing away
            row = row - _times(made.T, _times(made, row))
        return made.at[i].set(row / jnp.sqrt(jnp.sum(jnp.square(row))))

    rows: jax.Array = jax.lax.fori_loop(0, len(numbers), add_row, jnp.zeros_like(numbers))
    return rows


def _times(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """Multiply in float32 on every device; summing products over an axis takes ten times as long on a CPU."""
    columns = matrix.shape[-1]
    if columns > 4:
        return jnp.dot(matrix, vector, precision="highest")
    return functools.reduce(jnp.add, (matrix[:, j] * vector[j] for j in range(columns)))
