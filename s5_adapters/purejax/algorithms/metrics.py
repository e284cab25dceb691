"""Metrics that algorithms report of an update, and the first of its numbers that is not finite."""

import jax
import jax.numpy as jnp

from s5_adapters.core.network.masks import split_mask
from s5_adapters.purejax.rollout import Episodes, Transitions

Metrics = dict[str, jax.Array]

ROLLOUT_METRICS = {
    "episode_return": "mean raw return of the episodes that ended in the rollout; NaN if none did",
    "episode_length": "mean length of those episodes in steps; NaN if none ended",
    "episodes": "number of those episodes",
    "observation_max": "largest absolute value in what the network saw",
    "reward_mean": "mean raw reward per step",
    "value_mean": "mean value estimate over the rollout",
    "explained_variance": "1 - var(value_target - value) / var(value_target)",
}
"""The metrics of ``rollout_metrics``, with their meaning."""

UPDATE_METRICS = {
    "grad_norm": "global norm of the gradient before clipping, mean over the gradient steps",
    "param_norm": "global norm of the parameters after the update",
    "learning_rate": "learning rate of the update",
    "fault": "-1, or which number was the first that is not finite: name_fault says it in words",
}
"""The metrics that ``Algorithm.finish`` adds, with their meaning."""

# In the order in which one makes the next go wrong.
_ROLLOUT_QUANTITIES = ("observation_max", "reward_mean", "value_mean")
_WORDS = {
    "observation_max": "an observation of the rollout",
    "reward_mean": "a reward of the rollout",
    "value_mean": "a value estimate of the rollout",
    "grad_norm": "the gradient norm",
    "param_norm": "the norm of the parameters",
}


def rollout_metrics(rollout: Transitions, episodes: Episodes, value_target: jax.Array) -> Metrics:
    """Return what the rollout says before it is learned from: scalars, named in ``ROLLOUT_METRICS``."""
    count = episodes.done.sum()
    residual = jnp.var(value_target - rollout.value)
    return {
        "episode_return": jnp.where(episodes.done, episodes.episode_return, 0).sum() / count,
        "episode_length": jnp.where(episodes.done, episodes.episode_length, 0).sum() / count,
        "episodes": count,
        "observation_max": jnp.abs(split_mask(rollout.obs)[0]).max(),
        "reward_mean": episodes.reward.mean(),
        "value_mean": rollout.value.mean(),
        "explained_variance": 1 - residual / jnp.maximum(jnp.var(value_target), 1e-8),
    }


def find_fault(metrics: Metrics, step_metrics: Metrics, losses: tuple[str, ...]) -> jax.Array:
    """Return which number of an update was the first that is not finite; -1 if all are.

    Args:
        metrics: scalars by name.
        step_metrics: the numbers of each gradient step, ``(gradient_steps,)`` by name.
        losses: those of them that must be finite beside ``grad_norm``, in order.
    """
    in_order = [jnp.stack([metrics[name] for name in _ROLLOUT_QUANTITIES])]
    in_order += [jnp.stack([step_metrics[name] for name in (*losses, "grad_norm")], axis=1).reshape(-1)]
    finite = jnp.isfinite(jnp.concatenate([*in_order, metrics["param_norm"][None]]))
    return jnp.where(finite.all(), -1, jnp.argmin(finite))


def name_quantity(fault: int, losses: tuple[str, ...], gradient_steps: int) -> tuple[str, int | None]:
    """Say which number ``find_fault`` found, and in which gradient step, if in any."""
    before, quantities = len(_ROLLOUT_QUANTITIES), (*losses, "grad_norm")
    if fault < before:
        return _words(_ROLLOUT_QUANTITIES[fault]), None
    step, quantity = divmod(fault - before, len(quantities))
    return (_words("param_norm"), None) if step == gradient_steps else (_words(quantities[quantity]), step)


def _words(quantity: str) -> str:
    return _WORDS.get(quantity, f"the {quantity.replace('_', ' ')}")
