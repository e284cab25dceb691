"""Metrics that algorithms report of an update, and the first of its numbers that is not finite."""

import jax
import jax.numpy as jnp

from s5_adapters.core.network.masks import split_mask
from s5_adapters.purejax.rollout import Episodes, Transitions
from s5_adapters.purejax.split import WHOLE, Split

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
    "skipped": "gradient steps not taken, since the gradient was not finite (on_nonfinite)",
    "fault": "-1, or which number was the first that is not finite: name_fault says it in words",
    "fault_env": "-1, or the first environment that gave an observation or a reward that is not finite",
    "fault_step": "-1, or the step of the rollout at which it did",
}
"""The metrics that ``Algorithm.finish`` adds, with their meaning."""

FAULT_METRICS = ("fault", "fault_env", "fault_step")
"""The metrics that say what went wrong, and are no numbers to look at."""

# In the order in which one makes the next go wrong.
_ROLLOUT_QUANTITIES = ("observation_max", "reward_mean", "value_mean")
_LAST_QUANTITIES = ("param_norm", "statistics")
_WORDS = {
    "observation_max": "an observation of the rollout",
    "reward_mean": "a reward of the rollout",
    "statistics": "a running mean or variance of observations or rewards",
    "value_mean": "a value estimate of the rollout",
    "grad_norm": "the gradient norm",
    "param_norm": "the norm of the parameters",
}


def rollout_metrics(
    rollout: Transitions, episodes: Episodes, value_target: jax.Array, split: Split = WHOLE
) -> Metrics:
    """Return what the rollout says before it is learned from: scalars, named in ``ROLLOUT_METRICS``.

    Args:
        rollout: ``(num_steps, num_envs)``.
        episodes: likewise.
        value_target: likewise.
        split: over devices, each of which brings its share of the environments and gets the whole's numbers.
    """
    count, returns, lengths = split.sum(
        (
            episodes.done.sum(),
            jnp.where(episodes.done, episodes.episode_return, 0).sum(),
            jnp.where(episodes.done, episodes.episode_length, 0).sum(),
        )
    )
    reward_mean, value_mean = split.mean((episodes.reward.mean(), rollout.value.mean()))
    env, step = _first_not_finite(episodes.is_finite, split)
    seen = split.max(jnp.abs(split_mask(rollout.obs)[0]).max())
    _, residual = split.moments(value_target - rollout.value)
    _, spread = split.moments(value_target)
    return {
        "episode_return": returns / count,
        "episode_length": lengths / count,
        "episodes": count,
        # A final observation is valued, not acted on: where one is not finite, only its place says so.
        "observation_max": jnp.where((env >= 0) & jnp.isfinite(reward_mean), jnp.nan, seen),
        "reward_mean": reward_mean,
        "value_mean": value_mean,
        "explained_variance": 1 - residual / jnp.maximum(spread, 1e-8),
        "fault_env": env,
        "fault_step": step,
    }


def _first_not_finite(is_finite: jax.Array, split: Split) -> tuple[jax.Array, jax.Array]:
    """Return the environment and the step of the first False of ``(num_steps, num_envs)``, or -1 and -1."""
    steps, own = is_finite.shape
    num_envs = own * split.devices
    step, env = jnp.divmod(jnp.argmin(is_finite.reshape(-1)), own)
    none = steps * num_envs
    place = jnp.where(is_finite.all(), none, step * num_envs + split.first_env(num_envs) + env)
    place = split.min(place)
    step, env = jnp.divmod(place, num_envs)
    return jnp.where(place == none, -1, env), jnp.where(place == none, -1, step)


def find_fault(metrics: Metrics, step_metrics: Metrics, losses: tuple[str, ...]) -> jax.Array:
    """Return which number of an update was the first that is not finite; -1 if all are.

    Args:
        metrics: scalars by name, ``statistics`` among them: finite where the running statistics are.
        step_metrics: the numbers of each gradient step, ``(gradient_steps,)`` by name.
        losses: those of them that must be finite beside ``grad_norm``, in order.
    """
    in_order = [jnp.stack([metrics[name] for name in _ROLLOUT_QUANTITIES])]
    in_order += [jnp.stack([step_metrics[name] for name in (*losses, "grad_norm")], axis=1).reshape(-1)]
    finite = jnp.isfinite(
        jnp.concatenate([*in_order, jnp.stack([metrics[name] for name in _LAST_QUANTITIES])])
    )
    return jnp.where(finite.all(), -1, jnp.argmin(finite))


def name_quantity(fault: int, losses: tuple[str, ...], gradient_steps: int) -> tuple[str, int | None]:
    """Say which number ``find_fault`` found, and in which gradient step, if in any."""
    before, quantities = len(_ROLLOUT_QUANTITIES), (*losses, "grad_norm")
    if fault < before:
        return _words(_ROLLOUT_QUANTITIES[fault]), None
    step, quantity = divmod(fault - before, len(quantities))
    if step == gradient_steps:
        return _words(_LAST_QUANTITIES[quantity]), None
    return _words(quantities[quantity]), step


def _words(quantity: str) -> str:
    return _WORDS.get(quantity, f"the {quantity.replace('_', ' ')}")
