"""Recurrent PPO (Schulman et al., arXiv 1707.06347).

Reads top to bottom, in the manner of purejaxrl: the hyperparameters, one update, its loss.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self, TypeVar

import jax
import jax.numpy as jnp

from s5_adapters.core.network.distributions import distribution
from s5_adapters.purejax.algorithms.actor_critic import LOSS_METRICS, ActorCriticAlgorithm
from s5_adapters.purejax.algorithms.algorithm import TrainState, register_algorithm
from s5_adapters.purejax.algorithms.gradients import global_norm
from s5_adapters.purejax.algorithms.metrics import UPDATE_METRICS, Metrics, rollout_metrics
from s5_adapters.purejax.fields import Count, Flag, Positive, PositiveOrNone
from s5_adapters.purejax.problem import Problem, Pytree
from s5_adapters.purejax.rollout import Transitions, advantages, collect, standardized

T = TypeVar("T")


@register_algorithm("ppo")
@dataclass(frozen=True)
class PPOConfig(ActorCriticAlgorithm):
    """Hyperparameters of recurrent PPO (Schulman et al., arXiv 1707.06347) with a resettable memory.

    Instances are immutable, hashable and equal by value; lists become tuples and mappings become frozen
    mappings, so a configuration read from JSON equals the one that was written. The defaults learn
    RepeatPreviousEasy in well under a minute on two cores; ``paper`` is the published setting.

    Raises:
        ValueError: one line naming the field, the value that came and what was expected.
    """

    num_epochs: Count = 4
    """Passes over each rollout."""
    num_minibatches: Count = 4
    """Gradient steps per pass; must divide ``num_envs``. A minibatch is whole columns of the rollout."""
    clip_range: Positive = 0.2
    """Probability ratios are clipped to [1 - clip_range, 1 + clip_range]."""
    clip_value_loss: Flag = True
    """Take the larger of the value's loss and that of the value held within ``clip_range`` of the old."""

    target_kl: PositiveOrNone = 0.02
    """End the learning of an update at the first minibatch whose ``approx_kl`` exceeds 1.5 times this, as
    Stable-Baselines3 does; None (``"none"`` in TOML): never. That step is logged, but not taken, and those
    after it are not computed. Without it a single update can end an action for good."""

    FORMERLY: ClassVar = {"target_kl": None}

    SPLITS: ClassVar = True
    METRICS: ClassVar = (
        LOSS_METRICS
        | {
            "approx_kl": "mean of (ratio - 1) - log(ratio): an estimate of KL(old || new)",
            "clip_fraction": "share of steps whose ratio was clipped",
            "gradient_steps": "gradient steps computed: fewer than all where target_kl was exceeded",
        }
        | UPDATE_METRICS
    )

    def __post_init__(self) -> None:
        """Check every field, and freeze what came mutable."""
        super().__post_init__()
        if self.num_envs % self.num_minibatches:
            divisors = ", ".join(str(n) for n in range(1, self.num_envs + 1) if self.num_envs % n == 0)
            raise ValueError(
                f"num_minibatches={self.num_minibatches} does not divide num_envs={self.num_envs}: "
                f"minibatches are whole environments, so expected one of {divisors}"
            )

    @classmethod
    def paper(cls, **overrides: Any) -> Self:
        """Return the setting of Lu et al., NeurIPS 2023 (arXiv 2303.03982); ``overrides`` replace fields.

        The GRU beside it has one layer, as there (``algorithms/ppo_gru.py`` of popjaxrl). With another memory
        the width and depth are S5's, and what only S5 has is left out.
        """
        memory = overrides.get("memory", "s5")
        memory_config: dict[str, Any] = {"d_model": 256, "n_layers": 1 if memory == "gru" else 4}
        if memory == "s5":
            memory_config |= {"d_state": 256, "discretization": "zoh", "dt_min": 0.001, "dt_max": 0.1}
            memory_config |= {"clip_eigenvalues": False}
        setting: dict[str, Any] = {
            "memory_config": memory_config,
            "encoder": (128, 256),
            "actor_torso": (128, 128),
            "critic_torso": (128, 128),
            "activation": "leaky_relu",
            "total_steps": 15_000_000,
            "num_envs": 64,
            "num_steps": 1024,
            "num_epochs": 30,
            "num_minibatches": 8,
            "learning_rate": 5e-5,
            "anneal_learning_rate": False,
            "max_grad_norm": 0.5,
            "gamma": 0.99,
            "gae_lambda": 1.0,
            "clip_range": 0.2,
            "entropy_coef": 0.0,
            "value_coef": 1.0,
            "time_limit": "terminal",
            "target_kl": None,
        }
        return cls(**(setting | overrides))

    @property
    def gradient_steps(self) -> int:
        """Gradient steps of one update: every minibatch of every epoch."""
        return self.num_epochs * self.num_minibatches

    @property
    def parts_of_rollout(self) -> int:
        """Minibatches of a pass."""
        return self.num_minibatches

    def name_gradient_step(self, step: int) -> str:
        """Say which epoch and minibatch it was."""
        epoch, minibatch = divmod(step, self.num_minibatches)
        return f" in epoch {epoch + 1}, minibatch {minibatch + 1}"

    def update(self, problem: Problem, state: TrainState) -> tuple[TrainState, Metrics]:
        """Collect one rollout, and go over it in epochs of minibatches."""
        split = problem.split
        key, rollout_key, epoch_key = jax.random.split(state.key, 3)
        learning_rate = self.annealed(state)

        carry, rollout, episodes = collect(problem, self, state.params, state.carry, rollout_key)
        advantage, value_target = advantages(rollout, self.gamma, self.gae_lambda)

        def minibatch_step(
            train: tuple[Pytree, Pytree], columns: jax.Array
        ) -> tuple[tuple[Pytree, Pytree], Metrics]:
            params, opt_state = train
            batch, batch_advantage, batch_target = jax.tree.map(
                lambda x: x[:, columns], (rollout, advantage, value_target)
            )
            memory_state = jax.tree.map(lambda x: x[columns], state.carry.memory_state)
            grads, metrics = jax.grad(ppo_loss, has_aux=True)(
                params, problem, self, batch, memory_state, batch_advantage, batch_target
            )
            grads, metrics = split.mean((grads, metrics))
            params, opt_state = self.descend(params, opt_state, grads, learning_rate)
            return (params, opt_state), metrics | {"grad_norm": global_norm(grads)}

        # Each epoch is a shuffle of the environments; a minibatch is the next few, with their whole rollout.
        # On several devices each shuffles its own, and a minibatch is the next few of every device.
        epoch_keys = jax.random.split(epoch_key, self.num_epochs)
        shuffles = jax.vmap(lambda key: split.minibatches(key, self.num_envs, self.num_minibatches))(
            epoch_keys
        )
        minibatches = shuffles.reshape(self.gradient_steps, -1)
        train = (state.params, state.opt_state)
        computed: jax.Array | None = None
        if self.target_kl is None:
            (params, opt_state), steps = jax.lax.scan(minibatch_step, train, minibatches)
        else:
            step = _until(minibatch_step, 1.5 * self.target_kl)
            begun = (train, jnp.bool_(False))
            ((params, opt_state), _), (steps, computed) = jax.lax.scan(step, begun, minibatches)

        measured = rollout_metrics(rollout, episodes, value_target, split)
        state = state._replace(params=params, opt_state=opt_state, carry=carry, key=key)
        return self.finish(state, learning_rate, measured, steps, computed)


def _until(
    minibatch_step: Callable[[T, jax.Array], tuple[T, Metrics]], limit: float
) -> Callable[[tuple[T, jax.Array], jax.Array], tuple[tuple[T, jax.Array], tuple[Metrics, jax.Array]]]:
    """Return the same step, which goes nowhere from the first on whose ``approx_kl`` is above a limit.

    It also says whether it was computed: what comes after that first one is not, and its metrics are 0.
    """

    def step(
        carry: tuple[T, jax.Array], columns: jax.Array
    ) -> tuple[tuple[T, jax.Array], tuple[Metrics, jax.Array]]:
        train, was_over = carry
        shapes = jax.eval_shape(minibatch_step, train, columns)[1]
        nothing = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        moved, metrics = jax.lax.cond(was_over, lambda *_: (train, nothing), minibatch_step, train, columns)
        is_over = was_over | (metrics["approx_kl"] > limit)
        kept = jax.tree.map(partial(jnp.where, is_over), train, moved)
        return (kept, is_over), (metrics, ~was_over)

    return step


def ppo_loss(
    params: Pytree,
    problem: Problem,
    config: PPOConfig,
    batch: Transitions,
    memory_state: Pytree,
    advantage: jax.Array,
    value_target: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Return the clipped surrogate objective (Schulman et al., arXiv 1707.06347, equation 9), negated.

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
        advantage = standardized(advantage, problem.split)
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
