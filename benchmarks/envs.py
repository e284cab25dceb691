"""Environment steps per second, ours against the installed popgym's, in one run.

Ours: 1024 environments vmapped under jit, one scan, automatic resets included. popgym's: one environment in a
Python loop, resets included. Both get random actions drawn beforehand and play from an episode's beginning;
the two are timed in turns, and medians are compared.

Targets: 20 times popgym where popgym makes under 200,000 steps/s, else 4 million steps/s; labyrinths 5 times
popgym. The exit status is 1 where one is missed.

    python benchmarks/envs.py [--only RepeatFirst ...] [--rounds 5]
"""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
from _common import interleaved_medians, machine, table, write_json

import s5_envs
from s5_envs import spaces

NUM_ENVS = 1024
POPGYM_STEPS = 4000
MODULES = {
    "MineSweeper": "minesweeper",
    "MultiarmedBandit": "multiarmed_bandit",
}


def ours(env_id: str, num_steps: int) -> Callable[[], Any]:
    """Return a program that takes ``num_steps`` steps in every environment, from fresh episodes on."""
    env, params = s5_envs.make(env_id, previous_action=False)
    space = env.action_space(params)
    shape = (num_steps, NUM_ENVS, *space.shape)
    if isinstance(space, spaces.Box):
        actions = jax.random.uniform(jax.random.key(1), shape, minval=space.low, maxval=space.high)
    else:
        high = jnp.array(space.nvec) if isinstance(space, spaces.MultiDiscrete) else space.n
        actions = jax.random.randint(jax.random.key(1), shape, 0, high)

    def step(carry: Any, now: Any) -> tuple[Any, None]:
        _, state, total = carry
        key, action = now
        keys = jax.random.split(key, NUM_ENVS)
        obs, state, reward, *_ = jax.vmap(env.step, in_axes=(0, 0, 0, None))(keys, state, action, params)
        # The observation is carried, as if for a policy, so that it is written out at every step.
        return (obs, state, total + reward), None

    @jax.jit
    def play(key: jax.Array, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
        key_reset, key_steps = jax.random.split(key)
        keys = jax.random.split(key_reset, NUM_ENVS)
        obs, state = jax.vmap(env.reset, in_axes=(0, None))(keys, params)
        steps = (jax.random.split(key_steps, num_steps), actions)
        obs, _, total = jax.lax.scan(step, (obs, state, jnp.zeros(NUM_ENVS)), steps)[0]
        return obs, total

    key = jax.random.key(0)
    return lambda: play(key, actions)


def theirs(env_id: str, num_steps: int) -> Callable[[], int]:
    """Return a program that takes ``num_steps`` steps in popgym's environment, from a fresh episode on."""
    family = env_id.removesuffix("Easy").removesuffix("Medium").removesuffix("Hard")
    snake = "".join("_" + c.lower() if c.isupper() else c for c in family).lstrip("_")
    module = MODULES.get(family, snake.replace("cart_pole", "cartpole"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # popgym advises against its own labyrinths
        env = getattr(importlib.import_module(f"popgym.envs.{module}"), env_id)()
    actions = [env.action_space.sample() for _ in range(num_steps)]

    def play() -> int:
        env.reset()
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return num_steps

    return play


def measure(env_id: str, rounds: int) -> dict[str, Any]:
    """Return steps per second of both, and whether the target is met."""
    labyrinth = env_id.startswith("Labyrinth")
    # A labyrinth's episode is to be whole: it has up to 1023 steps, and its maze is made at the beginning.
    num_steps = 1100 if labyrinth else 300
    popgym_steps = 5 * 1100 if labyrinth else POPGYM_STEPS
    seconds = interleaved_medians(
        {"ours": ours(env_id, num_steps), "popgym": theirs(env_id, popgym_steps)}, rounds=rounds
    )
    ours_rate = NUM_ENVS * num_steps / seconds["ours"]
    popgym_rate = popgym_steps / seconds["popgym"]
    target = 5 * popgym_rate if labyrinth else 20 * popgym_rate if popgym_rate < 200_000 else 4e6
    return {
        "env": env_id,
        "steps_per_s": round(ours_rate),
        "popgym_steps_per_s": round(popgym_rate),
        "ratio": round(ours_rate / popgym_rate, 1),
        "target_steps_per_s": round(target),
        "met": ours_rate >= target,
    }


def main() -> int:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="ids that begin so; nothing is recorded")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved samples per median (default 5)")
    options = parser.parse_args()
    prefixes = tuple(options.only or ("",))
    ids = [env_id for env_id in s5_envs.popgym_ids() if env_id.startswith(prefixes)]
    if not ids:
        parser.error(f"--only {' '.join(prefixes)}: no id begins so")
    info = machine()
    rows = []
    for env_id in ids:
        rows.append(measure(env_id, options.rounds))
        print(f"{env_id}: {rows[-1]['steps_per_s']:,} steps/s, {rows[-1]['ratio']} x popgym", flush=True)
    header = ["environment", "steps/s", "popgym", "ratio", "target", ""]
    lines = [
        [
            row["env"],
            f"{row['steps_per_s']:,}",
            f"{row['popgym_steps_per_s']:,}",
            f"{row['ratio']:.1f}",
            f"{row['target_steps_per_s']:,}",
            "met" if row["met"] else "MISSED",
        ]
        for row in rows
    ]
    print("\n" + table(header, lines))
    if not options.only:
        versions = {name: version(name) for name in ("popgym", "gymnax", "numpy")}
        print(f"\nwritten: {write_json('envs', info, rows, num_envs=NUM_ENVS, versions=versions)}")
    return 0 if all(row["met"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
