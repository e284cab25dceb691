"""Behaviour cloning: a recurrent policy that does what recorded episodes did.

Episodes are packed, whole and one after another, into ``num_envs`` columns, whose windows of ``num_steps``
are gradient steps: the state is carried from window to window and reset where an episode starts, as in a
training's rollouts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from s5_adapters.core import Box, MaskedObservation
from s5_adapters.core.files.weights import ObservationStatistics, Policy, as_policy
from s5_adapters.core.network.distributions import distribution
from s5_adapters.core.network.normalization import CLIP, EPSILON
from s5_adapters.purejax.algorithms.algorithm import Algorithm
from s5_adapters.purejax.episodes import Array, Episodes, discounted_returns, load_episodes
from s5_adapters.purejax.normalization import normalize
from s5_adapters.purejax.problem import Problem, Pytree, build_problem
from s5_adapters.purejax.run_folder import RunConfig
from s5_adapters.purejax.start import as_running_stats, require_start

HELD_OUT = 0.1
"""The share of episodes that are only looked at, to tell which epoch's policy is the best."""


class Progress(NamedTuple):
    """One epoch, as it is reported."""

    epoch: int
    loss: float
    """Mean negative log-probability of the recorded actions, over the epoch."""
    held_out: float
    """The same of the held-out episodes after it."""
    agreement: float
    """Share of their steps at which the policy's most likely action was the recorded one; NaN for a Box."""


class _Batch(NamedTuple):
    """What one step of a column is learned from; leaves lead with the number of steps."""

    obs: Pytree
    actions: Any
    episode_starts: Any
    returns: Any


def clone(
    run: RunConfig,
    episodes: str,
    *,
    epochs: int = 30,
    report: Callable[[Progress], None] = lambda _: None,
) -> Policy:
    """Teach a policy the actions of recorded episodes.

    The loss is the negative log-probability of the recorded action; where the file has rewards, the critic
    learns the discounted returns too (``gamma``, ``value_coef``), so that a training can go on from it.
    Observations are normalised by the recorded ones where ``normalize_observations`` says so. A tenth of the
    episodes is held out, and the policy after the epoch that explains them best is returned.

    Args:
        run: the environment, the network, the optimiser, ``num_envs`` and ``num_steps`` (columns and window),
            the seed, and perhaps the weights to start from; nothing else of it is used.
        episodes: a file of ``save_episodes``.
        epochs: passes over the episodes.
        report: called after each.

    Raises:
        ValueError: a configuration that cannot be built, or a file that does not fit it; one line.

    """
    config = run.training.completed()
    problem = build_problem(config)
    data = load_episodes(episodes, problem)
    rng = np.random.default_rng(run.seed)
    key = jax.random.key(run.seed)
    statistics = None
    if run.weights is None:
        params = problem.net.init(key)
        if config.normalize_observations:
            statistics = _statistics(data.obs)
    else:
        weights = as_policy(run.weights)
        require_start(weights, problem)
        params, statistics = jax.tree.map(jnp.array, weights.params), weights.obs_statistics
    learner = _Learner(problem, config, data, statistics)
    lengths = np.diff(data.bounds)
    order = rng.permutation(len(lengths))
    held_out = np.sort(order[: round(HELD_OUT * len(order))])
    taught = order[len(held_out) :]
    windows = learner.windows(lengths[taught])
    opt_state, updates = config.make_optimizer().init(params), epochs * windows
    best, best_params = np.inf, params
    for epoch in range(epochs):
        rows = learner.pack(data.bounds, rng.permutation(taught), windows)
        params, opt_state, loss = learner.teach(
            params, opt_state, *rows, jnp.int32(epoch * windows), jnp.int32(updates)
        )
        score, agreement = float(loss), np.nan
        if len(held_out):
            rows = learner.pack(data.bounds, held_out, learner.windows(lengths[held_out]))
            score, agreement = map(float, learner.look(params, *rows))
        if not np.isfinite(score):
            raise ValueError(f"clone: the loss is not finite in epoch {epoch + 1}, expected numbers")
        if score < best:
            best, best_params = score, params
        report(Progress(epoch + 1, float(loss), score, agreement))
    return Policy(
        config=problem.net.config,
        params=best_params,
        obs_statistics=statistics,
        env_id=config.env_id,
        env_kwargs=config.to_dict()["env_kwargs"],
        training={"trainer": "s5_adapters.purejax.clone", "config": run.to_dict(), "epochs": epochs},
    )


class _Learner:
    """The compiled passes over one set of episodes."""

    def __init__(
        self, problem: Problem, config: Algorithm, data: Episodes, statistics: ObservationStatistics | None
    ):
        self.config, self.problem = config, problem
        obs: Any = data.obs
        if statistics is not None:
            obs = normalize(as_running_stats(statistics), jnp.asarray(obs))
        if data.action_mask is not None:
            obs = MaskedObservation(obs, data.action_mask)
        returns = None if data.rewards is None else discounted_returns(data, config.gamma)
        steps = _Batch(obs, data.actions, data.episode_starts, returns)
        self._steps = jax.tree.map(jnp.asarray, steps)
        self.teach: Any = jax.jit(partial(_teach, problem, config, self._steps))
        self.look: Any = jax.jit(partial(_look, problem, config, self._steps))

    def windows(self, lengths: Array) -> int:
        """Return the windows that hold these episodes however they are packed."""
        longest = -(-int(lengths.sum()) // self.config.num_envs) + int(lengths.max())
        return -(-longest // self.config.num_steps)

    def pack(self, bounds: Array, chosen: Array, windows: int) -> tuple[jax.Array, jax.Array]:
        """Lay episodes into columns, each into the emptiest.

        Args:
            bounds: where episodes start in the data, and its length.
            chosen: the episodes, in their order.
            windows: from ``windows``.

        Returns:
            The steps' numbers in the data, ``(windows, num_steps, num_envs)``, and which of them count.

        """
        size = self.config.num_envs
        rows = np.zeros((windows * self.config.num_steps, size), np.int32)
        counts, filled = np.zeros(rows.shape, bool), np.zeros(size, int)
        for episode in chosen:
            first, last = bounds[episode], bounds[episode + 1]
            column = int(filled.argmin())
            here = slice(filled[column], filled[column] + last - first)
            rows[here, column], counts[here, column] = np.arange(first, last), True
            filled[column] += last - first
        shape = (windows, self.config.num_steps, size)
        return jnp.asarray(rows.reshape(shape)), jnp.asarray(counts.reshape(shape))


def _losses(
    problem: Problem,
    config: Algorithm,
    params: Pytree,
    memory_state: Pytree,
    batch: _Batch,
    counts: jax.Array,
) -> tuple[jax.Array, tuple[Pytree, jax.Array, jax.Array]]:
    """Return the loss, and the state after the window, the summed negative log-probability, the agreement."""
    starts = problem.memory_starts(batch.episode_starts)
    state, inputs, value = problem.net.apply(params, memory_state, batch.obs, starts)
    dist = distribution(problem.action, inputs)
    total = jnp.maximum(counts.sum(), 1)
    surprise = jnp.where(counts, -dist.log_prob(batch.actions), 0.0).sum()
    loss = surprise / total
    if batch.returns is not None:
        error = jnp.where(counts, value - batch.returns, 0.0)
        loss += getattr(config, "value_coef", 1.0) * 0.5 * jnp.square(error).sum() / total
    same = dist.mode() == batch.actions
    same = same.reshape(*counts.shape, -1).all(-1) & counts
    return loss, (state, surprise, same.sum())


def _teach(
    problem: Problem,
    config: Algorithm,
    steps: _Batch,
    params: Pytree,
    opt_state: Pytree,
    rows: jax.Array,
    counts: jax.Array,
    done: jax.Array,
    updates: jax.Array,
) -> tuple[Pytree, Pytree, jax.Array]:
    """Do one epoch: a gradient step for each window."""

    def window(carry: Any, now: Any) -> tuple[Any, jax.Array]:
        params, opt_state, memory_state, done = carry
        rows, counts = now
        batch = jax.tree.map(lambda x: x[rows], steps)
        rate = jnp.float32(config.learning_rate)
        if config.anneal_learning_rate:
            rate *= 1 - done / updates
        loss = partial(_losses, problem, config)
        (_, (memory_state, surprise, _)), grads = jax.value_and_grad(loss, has_aux=True)(
            params, memory_state, batch, counts
        )
        params, opt_state = config.descend(params, opt_state, grads, rate)
        return (params, opt_state, memory_state, done + 1), surprise

    first = (params, opt_state, problem.net.initial_state(config.num_envs), done)
    (params, opt_state, _, _), surprise = jax.lax.scan(window, first, (rows, counts))
    return params, opt_state, surprise.sum() / counts.sum()


def _look(
    problem: Problem, config: Algorithm, steps: _Batch, params: Pytree, rows: jax.Array, counts: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return mean negative log-probability and agreement, and teach nothing."""

    def window(memory_state: Pytree, now: Any) -> tuple[Pytree, tuple[jax.Array, jax.Array]]:
        rows, counts = now
        batch = jax.tree.map(lambda x: x[rows], steps)
        _, (memory_state, surprise, same) = _losses(problem, config, params, memory_state, batch, counts)
        return memory_state, (surprise, same)

    first = problem.net.initial_state(config.num_envs)
    _, (surprise, same) = jax.lax.scan(window, first, (rows, counts))
    agreement = jnp.nan if isinstance(problem.action, Box) else same.sum() / counts.sum()
    return surprise.sum() / counts.sum(), jnp.asarray(agreement)


def _statistics(obs: Array) -> ObservationStatistics:
    wide = obs.astype(np.float64)
    mean, variance = wide.mean(axis=0).astype(np.float32), wide.var(axis=0).astype(np.float32)
    return ObservationStatistics(mean, variance, EPSILON, CLIP, float(len(obs)))
