"""Write ``envs/s5_envs/scores.json``: what random and best-known play score in each POPGym environment.

    python scripts/record_scores.py [--episodes 1000]

Best-known play is ``s5_envs.optimal``'s: a player who sees the hidden state.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import s5_envs
from s5_envs.optimal import best_action, plan_labyrinth, reveal
from s5_envs.popgym.labyrinth import Labyrinth

SCORES = Path(s5_envs.__file__).parent / "scores.json"


@partial(jax.jit, static_argnums=(0, 1))
def play(env: Any, best: bool, keys: jax.Array, plans: jax.Array | None = None) -> jax.Array:
    """Play one episode per key; return ``(len(keys),)`` float32.

    Args:
        env: the environment.
        best: whether to play as well as is known, or at random.
        keys: ``(N,)`` keys.
        plans: ``(N, episode_length)`` actions to play instead.
    """
    params = env.default_params
    space = env.action_space(params)

    def episode(key: jax.Array, plan: jax.Array | None) -> jax.Array:
        key_deal, key_steps = jax.random.split(key)
        state = env.start(reveal(env, key_deal), params)

        def step(carry: Any, now: Any) -> tuple[Any, None]:
            state, running, total = carry
            key, planned = now
            key_action, key_step = jax.random.split(key)
            if planned is not None:
                action = planned
            else:
                action = best_action(env, state) if best else space.sample(key_action)
            _, state, reward, terminated, _ = env.step_env(key_step, state, action, params)
            total += jnp.where(running, reward, 0.0)
            running &= ~(terminated | env.is_truncated(state, params))
            return (state, running, total), None

        steps = (jax.random.split(key_steps, env.episode_length), plan)
        return jax.lax.scan(step, (state, jnp.array(True), jnp.float32(0)), steps)[0][2]

    return jax.vmap(episode)(keys, plans)


def plan_all(env: Labyrinth, keys: jax.Array) -> jax.Array:
    """Return the best play of the labyrinths that ``play`` deals with the same keys."""
    layouts = jax.vmap(lambda key: reveal(env, jax.random.split(key)[0]))(keys)
    plans = np.zeros((len(keys), env.episode_length), np.int32)
    for i in range(len(keys)):
        plan = plan_labyrinth(env, jax.tree.map(lambda x, i=i: np.asarray(x[i]), layouts))
        plans[i, : len(plan)] = plan[: env.episode_length]
    return jnp.asarray(plans)


def summary(returns: jax.Array) -> dict[str, float]:
    """Return mean and standard error."""
    values = np.asarray(returns, np.float64)
    error = values.std(ddof=1) / np.sqrt(len(values))
    return {"mean": round(float(values.mean()), 4), "standard_error": round(float(error), 4)}


def main() -> None:
    """Play and record."""
    parser = argparse.ArgumentParser(description="Record what random and best-known play score.")
    parser.add_argument("--episodes", type=int, default=1000)
    options = parser.parse_args()
    scores: dict[str, Any] = {}
    for i, env_id in enumerate(s5_envs.popgym_ids()):
        env, _ = s5_envs.make(env_id, previous_action=False)
        key_random, key_best = jax.random.split(jax.random.fold_in(jax.random.key(0), i))
        keys = jax.random.split(key_best, options.episodes)
        plans = plan_all(env, keys) if isinstance(env, Labyrinth) else None
        scores[env_id] = {
            "random": summary(play(env, False, jax.random.split(key_random, options.episodes))),
            "best": summary(play(env, True, keys, plans)),
        }
        print(env_id, scores[env_id], flush=True)
    SCORES.write_text(json.dumps({"episodes": options.episodes, "scores": scores}, indent=2) + "\n")


if __name__ == "__main__":
    main()
