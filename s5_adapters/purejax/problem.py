"""The environment and the network that a configuration asks for, built and checked before anything runs."""

import dataclasses
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict, freeze

import s5_envs
from s5_adapters.core import ActorCritic, ActorCriticConfig, Box, Discrete, MultiDiscrete
from s5_adapters.core.network.actor_critic import SMALLEST_IMAGE
from s5_adapters.purejax.config import PPOConfig
from s5_envs.batch import reset_batch, step_batch

Pytree = Any
ActionSpec = Discrete | MultiDiscrete | Box


class EnvStep(NamedTuple):
    """What one step of every environment gives; arrays lead with ``num_envs``."""

    obs: jax.Array
    """The next observation: after an episode's end, the first of the next episode."""
    state: Pytree
    """Environment states, after the automatic reset."""
    reward: jax.Array
    """float32."""
    terminated: jax.Array
    """bool: the episode ended by its own rules; nothing follows it."""
    truncated: jax.Array
    """bool: a limit cut the episode short, and it had not ended by its own rules."""
    final_obs: jax.Array
    """The observation before the automatic reset."""


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """An environment with its parameters, and the network for its spaces.

    Equal only to itself, hence hashable whatever its parts are: a static argument of ``jax.jit``.
    """

    env: Any
    env_params: Any
    action: ActionSpec
    obs_shape: tuple[int, ...]
    net: ActorCritic

    def reset(self, key: jax.Array, num_envs: int) -> tuple[jax.Array, Pytree]:
        """Begin an episode in each environment: ``obs (num_envs, *obs_shape)`` and the states."""
        obs, state = reset_batch(self.env, jax.random.split(key, num_envs), self.env_params)
        return self._shape(obs), jax.tree.map(_strong, state)

    def step(self, keys: jax.Array, state: Pytree, action: jax.Array) -> EnvStep:
        """Step every environment with its own key, resetting those whose episode ends.

        Args:
            keys: ``(num_envs,)`` keys.
            state: environment states.
            action: as sampled from the policy; continuous ones are clipped to the environment's bounds here.
        """
        if isinstance(self.action, Box):
            low, high = (jnp.asarray(b, action.dtype) for b in (self.action.low, self.action.high))
            action = jnp.clip(action, low, high)
            action = action.reshape(-1, *self.env.action_space(self.env_params).shape)
        obs, state, reward, terminated, truncated, info = step_batch(
            self.env, keys, state, action, self.env_params
        )
        terminated = terminated.astype(bool)
        return EnvStep(
            obs=self._shape(obs),
            state=jax.tree.map(_strong, state),
            reward=reward.reshape(-1).astype(jnp.float32),
            terminated=terminated,
            truncated=truncated.astype(bool) & ~terminated,
            final_obs=self._shape(info["final_observation"]),
        )

    def _shape(self, obs: jax.Array) -> jax.Array:
        return _strong(obs.reshape(-1, *self.obs_shape))


_NETWORK = (
    "memory",
    "memory_config",
    "encoder",
    "actor_torso",
    "critic_torso",
    "activation",
    "critic_memory",
)


def build_problem(config: PPOConfig) -> Problem:
    """Build what ``config`` names; nothing is compiled or written yet.

    Configurations that name the same environment and network get the same object, so that what was compiled
    for one serves the other.

    Raises:
        ValueError: one line, for an unknown environment or memory (with the nearest names), arguments that
            they do not take, an environment that does not do what its interface says, and spaces that the
            network has no head or encoder for.
    """
    network: FrozenDict[str, Any] = freeze({name: getattr(config, name) for name in _NETWORK})
    return _build_problem(config.env_id, config.env_kwargs, network)


@lru_cache(maxsize=32)
def _build_problem(env_id: str, env_kwargs: FrozenDict[str, Any], network: FrozenDict[str, Any]) -> Problem:
    env, env_params = s5_envs.make(env_id, **env_kwargs)
    # A problem may be built with x64 off and used with it on, as in evaluating what was trained before.
    env = s5_envs.adapt(env, env_params, name=env_id, always=True)
    if not hasattr(env.observation_space(env_params), "low"):
        env = s5_envs.FlattenObservation(env)
    action = action_spec(env.action_space(env_params), env_id)
    obs_shape = observation_shape(env.observation_space(env_params), env_id)
    net = ActorCritic(ActorCriticConfig(obs_shape=obs_shape, action=action, **dict(network)))
    return Problem(env, env_params, action, obs_shape, net)


def action_spec(space: Any, env_id: str) -> ActionSpec:
    """The network's action specification for an environment's action space.

    Raises:
        ValueError: neither discrete, multi-discrete nor a box, or a box without room between its bounds.
    """
    if hasattr(space, "nvec"):
        return MultiDiscrete(tuple(int(n) for n in space.nvec))
    if hasattr(space, "n"):
        return Discrete(int(space.n))
    if hasattr(space, "low"):
        size = int(np.prod(space.shape))
        low, high = (
            np.broadcast_to(np.asarray(bound, np.float32), space.shape) for bound in (space.low, space.high)
        )
        try:
            return Box(*(tuple(bound.reshape(size).tolist()) for bound in (low, high)))
        except ValueError as error:
            raise ValueError(f"{env_id}: action space: {error}") from error
    raise ValueError(f"{env_id}: action space {space!r}, expected Discrete, MultiDiscrete or Box")


def observation_shape(space: Any, env_id: str) -> tuple[int, ...]:
    """The shape in which the network sees an observation: images stay, all else is flat.

    Raises:
        ValueError: not a box, or an image that is too small for the Nature CNN.
    """
    if not hasattr(space, "low"):
        raise ValueError(
            f"{env_id}: observation space {space!r}, expected a Box (wrap the environment to flatten it)"
        )
    shape = tuple(space.shape)
    if len(shape) == 3 and min(shape[:2]) < SMALLEST_IMAGE:
        raise ValueError(
            f"{env_id}: observations of shape {shape}, expected at least {SMALLEST_IMAGE} pixels a side"
        )
    return shape if len(shape) == 3 else (int(np.prod(shape)),)


def _strong(x: jax.Array) -> jax.Array:
    """Drop the weak type that a Python number left in a state: with it the second call is another program."""
    return x if jnp.issubdtype(x.dtype, jax.dtypes.extended) else x.astype(x.dtype)
