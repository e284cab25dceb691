"""Train a configuration in the jitted trainer: seed by seed, resumably, or all seeds in one program."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from s5_adapters.purejax import Algorithm, Evaluator, RunOptions, Trainer, build_problem, make_train
from s5_adapters.purejax.logging import read_log
from s5_adapters.purejax.run_folder import CONFIG_NAME
from s5_adapters.reproduce.spec import Cell, configuration
from s5_adapters.sweeps.curves import best_return, final_return

EVALUATION_EPISODES = 256
CURVE_POINTS = 200
"""A curve keeps at most so many points, each the mean of as many updates."""

# Seconds on two cores of a server's CPU, from runs of the trainer there; good for a plan, not for a claim.
_COMPILING = 12.0
_SECONDS_PER_STEP = 2e-6
_SECONDS_PER_ROW = 3e-5  # a step of however few environments, and its share of an update
_FLOPS_PER_SECOND = 1.2e11
_SLOWNESS = {"gru": 3.0, "lstm": 3.5, "attention": 6.0, "mamba": 3.0, "mingru": 1.5, "feedforward": 0.7}
"""Of a memory's floating-point operations, against S5's."""


def run(cell: Cell, folder: Path) -> dict[str, Any]:
    """Train a cell's seeds and return what is known of each.

    Args:
        cell: what to train.
        folder: where a run of one seed is kept until it is done; one that is there is continued.
    """
    config = configuration(cell.entry.work)
    if len(cell.seeds) == 1:
        compile_seconds, runs = _one(config, cell.seeds[0], folder)
    else:
        compile_seconds, runs = _together(config, cell.seeds)
    return {
        **describe(cell.entry.work),
        "compile_seconds": round(compile_seconds, 2),
        "in_one_program": len(cell.seeds),
        "runs": runs,
    }


def describe(work: Mapping[str, Any]) -> dict[str, Any]:
    """Count what is trained: parameters, numbers in the memory's state, steps."""
    config = configuration(work)
    net = build_problem(config).net
    params, state = (
        sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(jax.eval_shape(make)))
        for make in (lambda: net.init(jax.random.key(0)), lambda: net.initial_state(1))
    )
    return {
        "parameters": params,
        "state_numbers": state,
        "steps": config.num_updates * config.steps_per_update,
    }


def estimate(work: Mapping[str, Any]) -> float:
    """Estimate the seconds that one seed takes on two cores, compiling included, roughly."""
    config = configuration(work)
    sizes = describe(work)
    passes = 1 + 3 * getattr(config, "num_epochs", 1)  # acting, then forward and backward in each epoch
    flops = 2 * sizes["parameters"] * passes * _SLOWNESS.get(config.memory, 1.0)
    rows = config.num_updates * config.num_steps * _SECONDS_PER_ROW
    return float(_COMPILING + rows + sizes["steps"] * (_SECONDS_PER_STEP + flops / _FLOPS_PER_SECOND))


def _one(config: Algorithm, seed: int, folder: Path) -> tuple[float, list[dict[str, Any]]]:
    if (folder / CONFIG_NAME).is_file():
        trainer = Trainer.resume(folder)
    else:
        options = RunOptions(keep_checkpoints=1, evaluation_episodes=EVALUATION_EPISODES)
        trainer = Trainer(config, seed=seed, run_dir=folder, options=options)
    trainer.run()
    evaluation = trainer.evaluate()
    rows = list(read_log(folder))  # of the whole run, also where this process did its last part alone
    if len(rows) < config.num_updates:
        there = f"{len(rows)} of {config.num_updates}"
        raise ValueError(f"{folder}: its log has {there} updates, expected all; remove it to train again")
    seconds, returns = ([row[name] for row in rows] for name in ("seconds", "episode_return"))
    steps = [row["step"] for row in rows]
    return trainer.compile_seconds, [_result(seed, steps, seconds, returns, evaluation)]


def _together(config: Algorithm, seeds: Sequence[int]) -> tuple[float, list[dict[str, Any]]]:
    """Train all seeds at once; each is given an equal share of the seconds, spread over its updates."""
    began = time.perf_counter()
    keys = jax.vmap(jax.random.key)(np.asarray(seeds))
    program = jax.jit(jax.vmap(make_train(config))).lower(keys).compile()
    compile_seconds = time.perf_counter() - began
    began = time.perf_counter()
    result = jax.block_until_ready(program(keys))
    share = (time.perf_counter() - began) / len(seeds)

    updates = np.arange(1, config.num_updates + 1)
    steps = (updates * config.steps_per_update).tolist()
    seconds = (share * updates / config.num_updates).tolist()
    evaluator = Evaluator(build_problem(config), EVALUATION_EPISODES)
    runs = []
    for i, seed in enumerate(seeds):
        (bad,) = np.nonzero(np.asarray(result.metrics["fault"][i]) >= 0)
        if bad.size:
            raise ValueError(
                f"seed {seed}: a number is not finite at update {bad[0] + 1} of {config.num_updates}"
            )
        state = jax.tree.map(lambda x, i=i: x[i], result.state)
        evaluation = evaluator(state.params, state.carry.obs_stats, jax.random.key(seed))
        returns = [
            None if math.isnan(value) else float(value)
            for value in np.asarray(result.metrics["episode_return"][i])
        ]
        runs.append(_result(seed, steps, seconds, returns, evaluation))
    return compile_seconds, runs


def _result(
    seed: int,
    steps: Sequence[int],
    seconds: Sequence[float],
    returns: Sequence[float | None],
    evaluation: Any,
) -> dict[str, Any]:
    return {
        "seed": seed,
        "steps": steps[-1],
        "seconds": round(seconds[-1], 3),  # as in the curve: its end is within them
        "mmer": best_return(returns),
        "final_return": final_return(steps, returns),
        "evaluation": {
            "episodes": len(evaluation.returns),
            "mean": evaluation.mean,
            "standard_error": evaluation.standard_error,
        },
        "curve": thin(steps, seconds, returns),
    }


def thin(
    steps: Sequence[int], seconds: Sequence[float], returns: Sequence[float | None]
) -> dict[str, list[float | None]]:
    """Thin a curve to at most `CURVE_POINTS`: means over blocks of updates, at the end of each."""
    size = -(-len(steps) // CURVE_POINTS)
    curve: dict[str, list[float | None]] = {"step": [], "seconds": [], "episode_return": []}
    for start in range(0, len(steps), size):
        stop = min(start + size, len(steps))
        there = [value for value in returns[start:stop] if value is not None]
        curve["step"].append(steps[stop - 1])
        curve["seconds"].append(round(seconds[stop - 1], 3))
        curve["episode_return"].append(round(float(np.mean(there)), 4) if there else None)
    return curve
