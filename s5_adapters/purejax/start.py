"""The start of a training from a portable policy."""

from typing import Any

import jax
import jax.numpy as jnp

from s5_adapters.core.files.weights import ObservationStatistics, Policy, require_same_network
from s5_adapters.core.network.normalization import CLIP, EPSILON
from s5_adapters.purejax.algorithms.algorithm import TrainState
from s5_adapters.purejax.config import NETWORK_FIELDS, TrainConfig
from s5_adapters.purejax.normalization import RunningStats
from s5_adapters.purejax.problem import Problem


def network_settings(policy: Policy) -> dict[str, Any]:
    """Return the fields of a ``TrainConfig`` that a policy's network decides."""
    settings = {name: getattr(policy.config, name) for name in NETWORK_FIELDS}
    settings["memory_config"] = dict(policy.config.memory_config)
    return settings | {"normalize_observations": policy.obs_statistics is not None}


def require_start(weights: Policy, problem: Problem) -> None:
    """Refuse a policy that a training in this environment cannot go on from.

    Raises:
        ValueError: another network, or statistics that the trainer keeps otherwise; one line.
    """
    require_same_network(weights.config, problem.net.config)
    statistics = weights.obs_statistics
    if statistics is not None and (statistics.epsilon, statistics.clip) != (EPSILON, CLIP):
        raise ValueError(
            f"weights: their observations are normalised with epsilon {statistics.epsilon:g} and clipped at "
            f"{statistics.clip:g}, expected {EPSILON:g} and {CLIP:g}, which the trainer goes on with"
        )


def as_running_stats(statistics: ObservationStatistics) -> RunningStats:
    """Return a policy's observation statistics as the trainer keeps them, copied."""
    mean, variance = jnp.array(statistics.mean), jnp.array(statistics.variance)
    return RunningStats(mean, variance, jnp.float32(statistics.samples))


def start_from(state: TrainState, weights: Policy, problem: Problem, config: TrainConfig) -> TrainState:
    """Put a policy's weights and observation statistics into a run's first state, copied.

    Raises:
        ValueError: another network, or statistics that the run does not keep or keeps otherwise; one line.
    """
    require_start(weights, problem)
    statistics = weights.obs_statistics
    if (statistics is not None) != config.normalize_observations:
        have = "no" if statistics is None else "their"
        raise ValueError(
            f"weights: they come with {have} observation statistics, so expected normalize_observations="
            f"{statistics is not None}, got {config.normalize_observations}"
        )
    params = jax.tree.map(jnp.array, weights.params)
    if statistics is None:
        return state._replace(params=params)
    stats = as_running_stats(statistics)
    return state._replace(params=params, carry=state.carry._replace(obs_stats=stats))
