"""The environment and the network that a configuration asks for, built and checked before anything runs."""

from collections.abc import Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.core import FrozenDict

import s5_envs
from s5_adapters.core import ActorCritic, ActorCriticConfig, Box, MaskedObservation
from s5_adapters.core.memories.defaults import require_dynamics
from s5_adapters.core.network.parts import part_of, require_learning
from s5_adapters.core.network.spaces import action_spec, has_action_mask, observation_shape
from s5_adapters.core.xla.shared import Shared
from s5_adapters.purejax.config import TrainConfig
from s5_adapters.purejax.split import WHOLE, Split
from s5_envs.batch import reset_batch, step_batch
from s5_envs.wrappers import layers

Pytree = Any


class EnvStep(NamedTuple):
    """The result of one step of every environment; arrays lead with ``num_envs``."""

    obs: Pytree
    """The next observation: after an episode's end, the first of the next episode; an array, or a
    ``MaskedObservation`` where the environment tells which actions are allowed."""
    state: Pytree
    """Environment states, after the automatic reset."""
    reward: jax.Array
    """float32."""
    terminated: jax.Array
    """bool: the episode ended by its own rules; nothing follows it."""
    truncated: jax.Array
    """bool: a limit cut the episode short, and it had not ended by its own rules."""
    final_obs: Pytree
    """The observation before the automatic reset."""
    info: dict[str, Pytree]
    """What the environment tells beside."""


class Problem(Shared):
    """An environment with its parameters, and the network for its spaces, kept for as long as somebody does.

    Equal only to itself, hence hashable whatever its parts are.

    Args:
        env_id: see ``EnvironmentConfig``.
        env_kwargs: likewise.
        network: the fields of a ``NetworkConfig``.
        resets: whether the memory is told where episodes start.

    Attributes:
        unseen_episodes: episodes (tasks) that each environment plays before those that an evaluation
            counts: one where the memory is never told of a start, as it is full of the past in training.
        programs: what was compiled for it and goes with it, by kind.
        split: over which devices its environments are; those of ``over`` alone are split.
    """

    split: Split = WHOLE

    def __init__(
        self, env_id: str, env_kwargs: FrozenDict[str, Any], network: FrozenDict[str, Any], resets: bool
    ):
        super().__init__(env_id, env_kwargs, network, resets)
        env, env_params = s5_envs.make(env_id, **env_kwargs)
        # A problem may be built with x64 off and used with it on, as in evaluating what was trained before.
        env = s5_envs.adapt(env, env_params, name=env_id, always=True)
        space = env.observation_space(env_params)
        self._is_masked = has_action_mask(space)
        if self._is_masked:
            env = s5_envs.SplitActionMask(env)
            space = env.observation_space(env_params).spaces["observation"]
        elif not hasattr(space, "low"):
            env = s5_envs.FlattenObservation(env)
            space = env.observation_space(env_params)
        self.env: Any = env
        self.env_params: Any = env_params
        try:
            self.action = action_spec(env.action_space(env_params))
            self.obs_shape = observation_shape(space)
        except ValueError as error:
            raise ValueError(f"{env_id}: {error}") from None
        self.net = ActorCritic(
            ActorCriticConfig(
                obs_shape=self.obs_shape, action=self.action, action_mask=self._is_masked, **dict(network)
            )
        )
        self.programs: dict[Hashable, Any] = {}
        self.unseen_episodes = 0 if resets else 1
        self._resets = resets

    @property
    def families(self) -> tuple[str, ...]:
        """The names of the environment's families, its own where it has none."""
        for layer in layers(self.env):
            if isinstance(layer, s5_envs.MultiTask):
                return tuple(family.name for family in layer.families)
        return (self.env.name,)

    @property
    def has_trials(self) -> bool:
        """Whether the environment's steps tell of trials; traces one, and runs nothing."""
        num_envs = len(self.families)
        state = jax.eval_shape(lambda: self.reset(jax.random.key(0), num_envs)[1])
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), num_envs))
        space = self.env.action_space(self.env_params)
        action = jax.ShapeDtypeStruct((num_envs, *space.shape), space.dtype)
        return "trial_ended" in jax.eval_shape(self.step, keys, state, action).info

    def over(self, split: Split) -> "Problem":
        """Return the same problem for code that runs on one device of several, each with a share of it."""
        share = object.__new__(Problem)
        share.__dict__ |= self.__dict__ | {"split": split, "_whole": self}
        return share

    def memory_starts(self, episode_starts: jax.Array) -> jax.Array:
        """Return where the memory is told that an episode starts: nowhere in the ablation without resets."""
        return episode_starts if self._resets else jnp.zeros_like(episode_starts)

    def reset(self, key: jax.Array, num_envs: int) -> tuple[Pytree, Pytree]:
        """Begin an episode in each environment: ``obs (num_envs, *obs_shape)``, masked or not, and the
        states.

        Of a problem that is split, in this device's share of ``num_envs`` environments.
        """
        obs, state = reset_batch(self.env, self.split.keys(key, num_envs), self.env_params)
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
            info=info,
        )

    def _shape(self, obs: Pytree) -> Pytree:
        if self._is_masked:
            return MaskedObservation(self._array(obs["observation"]), obs["action_mask"].astype(bool))
        return self._array(obs)

    def _array(self, obs: jax.Array) -> jax.Array:
        return _strong(obs.reshape(-1, *self.obs_shape))


def build_problem(config: TrainConfig) -> Problem:
    """Build what ``config`` names; nothing is compiled or written yet.

    Configurations that name the same environment and network get the same object while one is in use.

    Raises:
        ValueError: one line, for an unknown environment or memory (with the nearest names), arguments that
            they do not take, ``dynamics_lr_scale`` with a memory that has nothing for it to scale, ``freeze``
            that leaves nothing to learn, ``trial_end="terminal"`` with an environment without trials, one
            that does not do what its interface says, and spaces that the network has no head or encoder for.
    """
    require_dynamics(config.memory, config.dynamics_lr_scale)
    problem = Problem.of(config.env_id, config.env_kwargs, config.network, config.resets)
    if config.trial_end == "terminal" and not problem.has_trials:
        raise ValueError(
            f"trial_end: got 'terminal' with {config.env_id}, which has no trials; expected 'continue', or "
            "an environment with s5_envs.Trials in it"
        )
    if config.freeze:
        paths = jax.tree_util.tree_leaves_with_path(problem.net.param_shapes())
        names = (jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths)
        require_learning("freeze", config.freeze, map(part_of, names))
    return problem


def _strong(x: jax.Array) -> jax.Array:
    """Drop the weak type that a Python number left in a state: with it the second call is another program."""
    return x if jnp.issubdtype(x.dtype, jax.dtypes.extended) else x.astype(x.dtype)
