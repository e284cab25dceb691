"""Recurrent PPO as one pure function, to be jitted, and vmapped over seeds and learning rates.

Reads top to bottom, in the manner of purejaxrl: what training carries, the loss, one update, the whole run.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from s5_adapters.core.network.distributions import distribution
from s5_adapters.core.xla.platform import default_platform
from s5_adapters.purejax.config import PPOConfig
from s5_adapters.purejax.problem import Problem, Pytree, build_problem
from s5_adapters.purejax.rollout import Carry, Episodes, Transitions, advantages, collect, init_carry

Metrics = dict[str, jax.Array]


class TrainState(NamedTuple):
    """Everything that a run is at one moment: a checkpoint holds this and nothing else."""

    params: Pytree
    opt_state: optax.OptState
    carry: Carry
    key: jax.Array
    """Typed PRNG key that all later randomness comes from."""
    update: jax.Array
    """int32: updates done."""
    learning_rate: jax.Array
    """float32: the learning rate before annealing."""


class TrainResult(NamedTuple):
    """What a whole run leaves."""

    state: TrainState
    metrics: Metrics
    """Each ``(num_updates,)`` float32; ``METRICS`` says what they are."""


METRICS = {
    "episode_return": "mean raw return of the episodes that ended in the rollout; NaN if none did",
    "episode_length": "mean length of those episodes in steps; NaN if none ended",
    "episodes": "number of those episodes",
    "observation_max": "largest absolute value in what the network saw",
    "reward_mean": "mean raw reward per step",
    "value_mean": "mean value estimate over the rollout",
    "explained_variance": "1 - var(value_target - value) / var(value_target)",
    "policy_loss": "clipped surrogate loss, mean over the minibatches",
    "value_loss": "value loss before its coefficient, mean over the minibatches",
    "entropy": "policy entropy in nats, mean over the minibatches",
    "approx_kl": "mean of (ratio - 1) - log(ratio): an estimate of KL(old || new)",
    "clip_fraction": "share of steps whose ratio was clipped",
    "grad_norm": "global norm of the gradient before clipping, mean over the minibatches",
    "param_norm": "global norm of the parameters after the update",
    "learning_rate": "learning rate of the update",
    "fault": "-1, or which number was the first that is not finite: see find_fault",
}

# In the order in which one makes the next go wrong.
_ROLLOUT_QUANTITIES = ("observation_max", "reward_mean", "value_mean")
_MINIBATCH_QUANTITIES = ("policy_loss", "value_loss", "entropy", "grad_norm")
_QUANTITY_NAMES = {
    "observation_max": "an observation",
    "reward_mean": "a reward",
    "value_mean": "a value estimate",
    "policy_loss": "the policy loss",
    "value_loss": "the value loss",
    "entropy": "the entropy",
    "grad_norm": "the gradient norm",
    "param_norm": "the norm of the parameters",
}


def make_optimizer(config: PPOConfig) -> optax.GradientTransformation:
    """Gradient clipping and Adam's direction; the update applies the step size, which may be traced."""
    clip = (
        optax.identity() if config.max_grad_norm is None else optax.clip_by_global_norm(config.max_grad_norm)
    )
    return optax.chain(clip, optax.scale_by_adam(eps=config.adam_eps))


@partial(jax.jit, static_argnames=("problem", "config"))
def init_state(problem: Problem, config: PPOConfig, key: jax.Array, learning_rate: jax.Array) -> TrainState:
    """The state before the first update."""
    net_key, env_key, key = jax.random.split(key, 3)
    params = problem.net.init(net_key)
    return TrainState(
        params=params,
        opt_state=make_optimizer(config).init(params),
        carry=init_carry(problem, config, env_key),
        key=key,
        update=jnp.int32(0),
        learning_rate=learning_rate,
    )


def ppo_loss(
    params: Pytree,
    problem: Problem,
    config: PPOConfig,
    batch: Transitions,
    memory_state: Pytree,
    advantage: jax.Array,
    value_target: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """The clipped surrogate objective (Schulman et al., arXiv 1707.06347, equation 9), negated.

    Args:
        params: parameters of ``problem.net``.
        problem: gives the network and the kind of action.
        config: coefficients and options.
        batch: whole columns of a rollout, ``(num_steps, columns)``.
        memory_state: what the memory carried into their first step, ``(columns, ...)``.
        advantage: ``(num_steps, columns)``.
        value_target: ``(num_steps, columns)``.
    """
    _, dist_inputs, value = problem.net.apply(params, memory_state, batch.obs, batch.episode_starts)
    dist = distribution(problem.action, dist_inputs)

    if config.normalize_advantages:
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    log_ratio = dist.log_prob(batch.action) - batch.log_prob
    ratio = jnp.exp(log_ratio)
    clipped_ratio = jnp.clip(ratio, 1 - config.clip_range, 1 + config.clip_range)
    policy_loss = -jnp.minimum(ratio * advantage, clipped_ratio * advantage).mean()

    squared_error = jnp.square(value - value_target)
    if config.clip_value_loss:
        clipped_value = batch.value + jnp.clip(value - batch.value, -config.clip_range, config.clip_range)
        squared_error = jnp.maximum(squared_error, jnp.square(clipped_value - value_target))
    value_loss = 0.5 * squared_error.mean()

    entropy = dist.entropy().mean()
    loss = policy_loss + config.value_coef * value_loss - config.entropy_coef * entropy
    return loss, {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "approx_kl": (ratio - 1 - log_ratio).mean(),
        "clip_fraction": (jnp.abs(ratio - 1) > config.clip_range).mean(dtype=jnp.float32),
    }


# As ``jax.default_matmul_precision`` calls what it means on a GPU. XLA's CPU backend does not compile every
# product under these names, and has no TF32.
_ALGORITHMS = {"tensorfloat32": "TF32_TF32_F32", "bfloat16": "BF16_BF16_F32"}


def _matmul_precision(config: PPOConfig) -> str | None:
    if config.precision == "default":
        return None
    if default_platform() == "cpu":
        return config.precision
    return _ALGORITHMS.get(config.precision, config.precision)


def update_step(problem: Problem, config: PPOConfig, state: TrainState) -> tuple[TrainState, Metrics]:
    """One rollout and the epochs over it; the metrics are float32 scalars, described in ``METRICS``."""
    with jax.default_matmul_precision(_matmul_precision(config)):
        return _update_step(problem, config, state)


def _update_step(problem: Problem, config: PPOConfig, state: TrainState) -> tuple[TrainState, Metrics]:
    optimizer = make_optimizer(config)
    key, rollout_key, epoch_key = jax.random.split(state.key, 3)
    learning_rate = state.learning_rate
    if config.anneal_learning_rate:
        learning_rate = learning_rate * (1 - state.update / config.num_updates)

    carry, rollout, episodes = collect(problem, config, state.params, state.carry, rollout_key)
    advantage, value_target = advantages(rollout, config.gamma, config.gae_lambda)

    def minibatch_step(
        train: tuple[Pytree, optax.OptState], columns: jax.Array
    ) -> tuple[tuple[Pytree, optax.OptState], Metrics]:
        params, opt_state = train
        batch, batch_advantage, batch_target = jax.tree.map(
            lambda x: x[:, columns], (rollout, advantage, value_target)
        )
        memory_state = jax.tree.map(lambda x: x[columns], state.carry.memory_state)
        grads, metrics = jax.grad(ppo_loss, has_aux=True)(
            params, problem, config, batch, memory_state, batch_advantage, batch_target
        )
        directions, opt_state = optimizer.update(grads, opt_state, params)
        params = jax.tree.map(lambda param, direction: param - learning_rate * direction, params, directions)
        return (params, opt_state), metrics | {"grad_norm": optax.tree.norm(grads)}

    # Each epoch is a shuffle of the environments; a minibatch is the next few, with their whole rollout.
    epoch_keys = jax.random.split(epoch_key, config.num_epochs)
    shuffles = jax.vmap(lambda key: jax.random.permutation(key, config.num_envs))(epoch_keys)
    minibatches = shuffles.reshape(config.num_epochs * config.num_minibatches, -1)
    (params, opt_state), losses = jax.lax.scan(minibatch_step, (state.params, state.opt_state), minibatches)

    metrics = rollout_metrics(rollout, episodes, value_target)
    metrics |= jax.tree.map(jnp.mean, losses)
    metrics |= {"param_norm": optax.tree.norm(params), "learning_rate": learning_rate}
    metrics["fault"] = find_fault(metrics, losses)
    state = TrainState(params, opt_state, carry, key, state.update + 1, state.learning_rate)
    return state, {name: jnp.asarray(metrics[name], jnp.float32) for name in METRICS}


def rollout_metrics(rollout: Transitions, episodes: Episodes, value_target: jax.Array) -> Metrics:
    """What the rollout says before it is learned from."""
    count = episodes.done.sum()
    residual = jnp.var(value_target - rollout.value)
    return {
        "episode_return": jnp.where(episodes.done, episodes.episode_return, 0).sum() / count,
        "episode_length": jnp.where(episodes.done, episodes.episode_length, 0).sum() / count,
        "episodes": count,
        "observation_max": jnp.abs(rollout.obs).max(),
        "reward_mean": episodes.reward.mean(),
        "value_mean": rollout.value.mean(),
        "explained_variance": 1 - residual / jnp.maximum(jnp.var(value_target), 1e-8),
    }


def find_fault(metrics: Metrics, losses: Metrics) -> jax.Array:
    """Which number of an update was the first that is not finite, as ``name_fault`` reads it; -1 if all are.

    Args:
        metrics: scalars by name.
        losses: the numbers of each minibatch, ``(minibatches,)`` by name.
    """
    in_order = [jnp.stack([metrics[name] for name in _ROLLOUT_QUANTITIES])]
    in_order += [jnp.stack([losses[name] for name in _MINIBATCH_QUANTITIES], axis=1).reshape(-1)]
    finite = jnp.isfinite(jnp.concatenate([*in_order, metrics["param_norm"][None]]))
    return jnp.where(finite.all(), -1, jnp.argmin(finite))


def name_fault(fault: int, config: PPOConfig) -> str:
    """The number that ``find_fault`` found, in words."""
    before = len(_ROLLOUT_QUANTITIES)
    minibatch, quantity = divmod(fault - before, len(_MINIBATCH_QUANTITIES))
    if fault < before:
        return f"{_QUANTITY_NAMES[_ROLLOUT_QUANTITIES[fault]]} of the rollout"
    if minibatch == config.num_epochs * config.num_minibatches:
        return _QUANTITY_NAMES["param_norm"]
    epoch, minibatch = divmod(minibatch, config.num_minibatches)
    return (
        f"{_QUANTITY_NAMES[_MINIBATCH_QUANTITIES[quantity]]} in epoch {epoch + 1}, minibatch {minibatch + 1}"
    )


def run_updates(
    problem: Problem, config: PPOConfig, state: TrainState, num_updates: int | jax.Array, buffer_size: int
) -> tuple[TrainState, Metrics]:
    """Do ``num_updates`` updates, a number that may be traced, and return the metrics of each.

    The loop's bound and its first state pass an optimisation barrier, so XLA compiles the same loop whether
    they are constants (in ``train``) or arguments (in ``Trainer``): that is why both give the same bits.

    Returns:
        The state, and metrics of shape ``(buffer_size,)`` whose first ``num_updates`` entries are set.
    """
    state, bound = jax.lax.optimization_barrier((state, jnp.int32(num_updates)))
    empty = {name: jnp.zeros(buffer_size, jnp.float32) for name in METRICS}

    def body(index: jax.Array, loop: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
        state, buffer = loop
        state, metrics = jax.lax.optimization_barrier(update_step(problem, config, state))
        return state, {name: buffer[name].at[index].set(metrics[name]) for name in METRICS}

    result: tuple[TrainState, Metrics] = jax.lax.fori_loop(0, bound, body, (state, empty))
    return result


@partial(jax.jit, static_argnames=("problem", "config", "buffer_size"), donate_argnames="state")
def run_chunk(
    state: TrainState, num_updates: jax.Array, *, problem: Problem, config: PPOConfig, buffer_size: int
) -> tuple[TrainState, Metrics]:
    """``run_updates``, compiled once for all lengths; the state given is used up."""
    return run_updates(problem, config, state, num_updates, buffer_size)


def make_train(config: PPOConfig) -> Callable[..., TrainResult]:
    """Build a whole training run as a pure function.

    ``train(key, learning_rate=None) -> TrainResult`` takes a typed key (``jax.random.key``) and perhaps a
    learning rate in place of the configuration's. Both may be traced:
    ``jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(0), 8))`` trains eight seeds in one program.

    A pure function cannot stop at a number that is not finite: ``metrics["fault"]`` is then no longer -1, and
    ``name_fault`` says which number it was. ``Trainer`` stops, and names the environment too.

    Raises:
        ValueError: one line, where the configuration names something that does not exist or fit, or its
            environment does not do what its interface says.
    """
    problem = build_problem(config)

    def train(key: jax.Array, learning_rate: float | jax.Array | None = None) -> TrainResult:
        rate = jnp.float32(config.learning_rate if learning_rate is None else learning_rate)
        state = init_state(problem, config, key, rate)
        return TrainResult(*run_updates(problem, config, state, config.num_updates, config.num_updates))

    return train
