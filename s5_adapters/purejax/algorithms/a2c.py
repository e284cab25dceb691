"""Recurrent A2C: advantage actor-critic (Mnih et al. 2016, arXiv 1602.01783), its environments in step.

Reads top to bottom: the hyperparameters, one update, its loss. docs/trainer.md has the setting in which Lu
et al. (2023, arXiv 2303.03982) ran bsuite's memory length with it.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from s5_adapters.core.network.distributions import distribution
from s5_adapters.purejax.algorithms.actor_critic import LOSS_METRICS, ActorCriticAlgorithm
from s5_adapters.purejax.algorithms.algorithm import TrainState, register_algorithm
from s5_adapters.purejax.algorithms.gradients import global_norm
from s5_adapters.purejax.algorithms.metrics import UPDATE_METRICS, Metrics, rollout_metrics
from s5_adapters.purejax.config import Optimizer
from s5_adapters.purejax.fields import Count, Flag, NonNegative, Positive
from s5_adapters.purejax.problem import Problem, Pytree
from s5_adapters.purejax.rollout import Transitions, advantages, collect, standardized


@register_algorithm("a2c")
@dataclass(frozen=True)
class A2CConfig(ActorCriticAlgorithm):
    """Hyperparameters of recurrent A2C: one gradient step over each whole rollout, nothing clipped in it.

    One step a rollout wants short rollouts and a high rate: on RepeatPreviousEasy (S5 of width 32, gamma 0.9,
    lambda 0.8, 500,000 steps, one seed) 8e-3 ended at 0.94, 4e-3 at 0.31 and 1e-3 nowhere.

    Raises:
        ValueError: one line naming the field, the value that came and what was expected.
    """

    num_steps: Count = 16
    optimizer: Optimizer = "rmsprop"
    learning_rate: Positive = 8e-3
    normalize_advantages: Flag = False
    entropy_coef: NonNegative = 0.01

    SPLITS: ClassVar = True
    METRICS: ClassVar = LOSS_METRICS | UPDATE_METRICS

    def update(self, problem: Problem, state: TrainState) -> tuple[TrainState, Metrics]:
        """Collect one rollout, and take one step along its gradient."""
        key, rollout_key = jax.random.split(state.key)
        learning_rate = self.annealed(state)

        carry, rollout, episodes = collect(problem, self, state.params, state.carry, rollout_key)
        advantage, value_target = advantages(rollout, self.gamma, self.gae_lambda)
        grads, losses = jax.grad(a2c_loss, has_aux=True)(
            state.params, problem, self, rollout, state.carry.memory_state, advantage, value_target
        )
        grads, losses = problem.split.mean((grads, losses))
        params, opt_state = self.descend(state.params, state.opt_state, grads, learning_rate)

        measured = rollout_metrics(rollout, episodes, value_target, problem.split)
        state = state._replace(params=params, opt_state=opt_state, carry=carry, key=key)
        return self.finish(state, learning_rate, measured, losses | {"grad_norm": global_norm(grads)})


def a2c_loss(
    params: Pytree,
    problem: Problem,
    config: A2CConfig,
    rollout: Transitions,
    memory_state: Pytree,
    advantage: jax.Array,
    value_target: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Return the loss whose negated gradient is that of Mnih et al., algorithm S3.

    Advantages and targets are constants.

    Args:
        params: parameters of ``problem.net``.
        problem: gives the network and the kind of action.
        config: coefficients and options.
        rollout: ``(num_steps, num_envs)``.
        memory_state: what the memory carried into its first step, ``(num_envs, ...)``.
        advantage: ``(num_steps, num_envs)``.
        value_target: ``(num_steps, num_envs)``.
    """
    _, dist_inputs, value = problem.net.apply(params, memory_state, rollout.obs, rollout.episode_starts)
    dist = distribution(problem.action, dist_inputs)
    if config.normalize_advantages:
        advantage = standardized(advantage, problem.split)
    policy_loss = -(dist.log_prob(rollout.action) * advantage).mean()
    value_loss = 0.5 * jnp.square(value - value_target).mean()
    entropy = dist.entropy().mean()
    loss = policy_loss + config.value_coef * value_loss - config.entropy_coef * entropy
    return loss, {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
