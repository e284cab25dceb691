"""A rollout, and the advantages of its steps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from s5_adapters.core import linear_recurrence
from s5_adapters.core.network.distributions import distribution
from s5_adapters.core.network.masks import split_mask
from s5_adapters.purejax.config import TrainConfig
from s5_adapters.purejax.normalization import RunningStats, init_stats, normalize, scale, update_stats
from s5_adapters.purejax.problem import Problem, Pytree
from s5_adapters.purejax.split import WHOLE, Split


class Carry(NamedTuple):
    """State between two rollouts; arrays lead with ``num_envs`` unless said otherwise."""

    env_state: Pytree
    obs: Pytree
    """The observation to act on next, as the environment gave it, with its mask if it has one."""
    episode_starts: jax.Array
    """bool: ``obs`` is the first of its episode."""
    memory_state: Pytree
    """The memory's state before the next step (it is zeroed there where an episode starts)."""
    episode_return: jax.Array
    """float32: raw reward of the current episode so far."""
    episode_length: jax.Array
    """int32: steps of the current episode so far."""
    obs_stats: RunningStats | None
    """Statistics of one observation; None where observations are left alone."""
    reward_stats: RunningStats | None
    """Statistics of the discounted return, a scalar; None where rewards are left alone."""
    discounted_return: jax.Array | None
    """float32: what ``reward_stats`` are gathered from."""


class Transitions(NamedTuple):
    """A rollout as algorithms see it; every leaf leads with ``(num_steps, num_envs)``."""

    obs: Pytree
    """Normalised, if observations are; with the masks of allowed actions, a ``MaskedObservation``."""
    episode_starts: jax.Array
    """Where the memory is told that an episode starts."""
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    """Normalised, if rewards are."""
    terminated: jax.Array
    """The end of the episode, after which nothing follows; with ``time_limit="terminal"`` any end."""
    truncated: jax.Array
    """Never where ``terminated`` is."""
    final_value: jax.Array
    """Value of the final observation, the one before an automatic reset, under the state carried to it.
    Meaningless but at truncated steps and at the rollout's last."""


class Episodes(NamedTuple):
    """The episodes at each step, before any normalisation; every leaf is ``(num_steps, num_envs)``."""

    reward: jax.Array
    done: jax.Array
    episode_return: jax.Array
    """Return up to and including this step: that of the whole episode where done."""
    episode_length: jax.Array
    is_finite: jax.Array
    """bool: so are the reward, the raw observation that was acted on, and the one that is valued after a
    truncation or the rollout's last step."""


def init_carry(problem: Problem, config: TrainConfig, key: jax.Array) -> Carry:
    """Reset every environment and begin with an empty memory."""
    obs, env_state = problem.reset(key, config.num_envs)
    num_envs = len(split_mask(obs)[0])  # of a split problem, this device's
    zeros = jnp.zeros(num_envs, jnp.float32)
    return Carry(
        env_state=env_state,
        obs=obs,
        episode_starts=jnp.ones(num_envs, bool),
        memory_state=problem.net.initial_state(num_envs),
        episode_return=zeros,
        episode_length=jnp.zeros(num_envs, jnp.int32),
        obs_stats=init_stats(problem.obs_shape) if config.normalize_observations else None,
        reward_stats=init_stats(()) if config.normalize_rewards else None,
        discounted_return=zeros if config.normalize_rewards else None,
    )


def collect(
    problem: Problem, config: TrainConfig, params: Pytree, carry: Carry, key: jax.Array
) -> tuple[Carry, Transitions, Episodes]:
    """Act for ``num_steps`` steps in every environment.

    Returns:
        The carry for the next rollout, the transitions, and the raw episode statistics.
    """
    net, split = problem.net, problem.split
    prepared = net.prepare(params)
    action_key, env_key = jax.random.split(key)
    action_keys = jax.random.split(action_key, config.num_steps)
    env_keys = split.keys(env_key, config.num_envs, config.num_steps)
    is_last = jnp.arange(config.num_steps) == config.num_steps - 1
    no_starts = jnp.zeros_like(carry.episode_starts)
    is_terminal = config.time_limit == "terminal"
    ends_with_trial = config.trial_end == "terminal"

    def value_of(memory_state: Pytree, obs_stats: RunningStats | None, obs: Pytree) -> jax.Array:
        return net.step(prepared, memory_state, _network_input(obs_stats, obs), no_starts)[2]

    def step(
        carry: Carry, now: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[Carry, tuple[Transitions, Episodes]]:
        sample_key, step_keys, is_last = now
        obs_stats = None if carry.obs_stats is None else _updated(carry.obs_stats, carry.obs, split)
        obs = _network_input(obs_stats, carry.obs)
        episode_starts = problem.memory_starts(carry.episode_starts)
        memory_state, dist_inputs, value = net.step(prepared, carry.memory_state, obs, episode_starts)
        dist = distribution(problem.action, dist_inputs)
        action = split.draw(
            lambda inputs: distribution(problem.action, inputs).sample(sample_key), dist_inputs
        )
        env = problem.step(step_keys, carry.env_state, action)
        done = env.terminated | env.truncated
        if is_terminal:
            env = env._replace(terminated=done, truncated=jnp.zeros_like(done))

        # ``done`` is the task's end, which resets the memory; what follows a trial's is a matter of credit.
        is_end = done
        if ends_with_trial:
            is_end = env.info["trial_ended"]
            env = env._replace(terminated=is_end, truncated=jnp.zeros_like(done))

        final_value, is_final_finite = jnp.zeros_like(value), jnp.ones_like(done)
        if not is_terminal:
            final_value, is_final_finite = jax.lax.cond(
                is_last | jnp.any(env.truncated),
                lambda: (value_of(memory_state, obs_stats, env.final_obs), _is_finite(env.final_obs)),
                lambda: (final_value, is_final_finite),
            )

        reward, reward_stats, discounted_return = env.reward, carry.reward_stats, carry.discounted_return
        if reward_stats is not None and discounted_return is not None:
            discounted_return = config.gamma * discounted_return + env.reward
            reward_stats = update_stats(reward_stats, discounted_return, split)
            reward = scale(reward_stats, env.reward)
            discounted_return = jnp.where(is_end, 0.0, discounted_return)

        episode_return = carry.episode_return + env.reward
        episode_length = carry.episode_length + 1
        is_finite = _is_finite(carry.obs) & jnp.isfinite(env.reward)
        is_finite &= is_final_finite | env.terminated  # after which no value is taken
        transition = Transitions(
            obs=obs,
            episode_starts=episode_starts,
            action=action,
            log_prob=dist.log_prob(action),
            value=value,
            reward=reward,
            terminated=env.terminated,
            truncated=env.truncated,
            final_value=final_value,
        )
        carry = Carry(
            env_state=env.state,
            obs=env.obs,
            episode_starts=done,
            memory_state=memory_state,
            episode_return=jnp.where(done, 0.0, episode_return),
            episode_length=jnp.where(done, 0, episode_length),
            obs_stats=obs_stats,
            reward_stats=reward_stats,
            discounted_return=discounted_return,
        )
        return carry, (transition, Episodes(env.reward, done, episode_return, episode_length, is_finite))

    carry, (transitions, episodes) = jax.lax.scan(step, carry, (action_keys, env_keys, is_last))
    if is_terminal:  # what the rollout cuts off goes on from the next observation
        last = value_of(carry.memory_state, carry.obs_stats, carry.obs)
        transitions = transitions._replace(final_value=transitions.final_value.at[-1].set(last))
        is_last_finite = episodes.is_finite[-1] & (_is_finite(carry.obs) | episodes.done[-1])
        episodes = episodes._replace(is_finite=episodes.is_finite.at[-1].set(is_last_finite))
    return carry, transitions, episodes


def advantages(transitions: Transitions, gamma: float, gae_lambda: float) -> tuple[jax.Array, jax.Array]:
    """Estimate generalised advantages (Schulman et al., arXiv 1506.02438, equation 16) and value targets.

    ``delta_t = r_t + gamma v_{t+1} - v_t`` and ``A_t = delta_t + gamma lambda A_{t+1}``, where the end of
    an episode stops the sum: terminated, ``v_{t+1}`` is 0; truncated, it is the final observation's value.

    Returns:
        Advantages and value targets, each ``(num_steps, num_envs)``.
    """
    done = transitions.terminated | transitions.truncated
    # Where the last step ends no episode, its final observation is the one that the next rollout begins with.
    next_value = jnp.concatenate([transitions.value[1:], transitions.final_value[-1:]])
    next_value = jnp.where(transitions.truncated, transitions.final_value, next_value)
    next_value = jnp.where(transitions.terminated, 0.0, next_value)
    delta = transitions.reward + gamma * next_value - transitions.value
    decay = jnp.full(1, gamma * gae_lambda, jnp.float32)
    advantage = linear_recurrence(decay, delta[..., None], done, reverse=True)[..., 0]
    return advantage, advantage + transitions.value


def _is_finite(obs: Pytree) -> jax.Array:
    """Tell of each environment whether its raw observation is finite."""
    array = split_mask(obs)[0]
    return jnp.isfinite(array).reshape(len(array), -1).all(axis=1)


def _updated(stats: RunningStats, obs: Pytree, split: Split) -> RunningStats:
    return update_stats(stats, split_mask(obs)[0], split)


def standardized(advantage: jax.Array, split: Split = WHOLE) -> jax.Array:
    """Return the advantages of a gradient step with mean 0 and standard deviation 1, over all devices."""
    mean, variance = split.moments(advantage)
    return (advantage - mean) / (jnp.sqrt(variance) + 1e-8)


def _network_input(stats: RunningStats | None, obs: Pytree) -> Pytree:
    return obs if stats is None else normalize(stats, obs)
