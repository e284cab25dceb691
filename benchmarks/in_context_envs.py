"""What in-context wrappers and MultiTask cost: environment steps per second with and without, in one run.

1,024 environments side by side under jit, one scan from fresh episodes on, automatic resets included.
CartPole bare, in Trials, in RandomProjection, and in both, first with random actions, under which some 50
episodes end at every step, then balanced, as by a trained policy, so that all last 200 steps; MetaControl's
families in one MultiTask beside each family's slice by itself. Programs are timed in turns, and medians are
compared.

Targets: projections and trials at most 1.2 times the time of bare CartPole, MultiTask at most 1.2 times the
sum of its slices. The exit status is 1 where one is missed.

    python benchmarks/in_context_envs.py [--rounds 5] [--steps 300] [--no-record]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from _common import interleaved_medians, machine, table, write_json

import s5_envs
from s5_envs import RandomProjection, Trials
from s5_envs.batch import reset_batch, step_batch

NUM_ENVS = 1024
LIMIT = 1.2
BALANCE = jnp.array([0.1, 0.2, 1.0, 0.3])
"""What position and angle and their velocities add to the push, so that the pole stays up."""


def balance(states: Any) -> jax.Array:
    """Return the pushes that keep CartPoles up, from their physics, whatever they are wrapped in."""
    while hasattr(states, "env_state"):
        states = states.env_state
    return jnp.asarray(states.physics @ BALANCE > 0, jnp.int32)


def program(
    env: Any,
    params: Any,
    num_envs: int,
    num_steps: int,
    act: Callable[[Any], jax.Array] | None = None,
) -> Callable[[], Any]:
    """Return a program that takes ``num_steps`` steps in ``num_envs`` environments; without ``act``, random
    ones.
    """
    space = env.action_space(params)
    keys = jax.random.split(jax.random.key(1), (num_steps, num_envs))
    actions = jax.jit(jax.vmap(jax.vmap(space.sample)))(keys)

    def step(carry: Any, now: Any) -> tuple[Any, None]:
        _, states, total = carry
        key, action = now
        own = jax.random.split(key, num_envs)
        action = action if act is None else act(states)
        obs, states, reward, *_ = step_batch(env, own, states, action, params)
        # The observation is carried, as if for a policy, so that it is written out at every step.
        return (obs, states, total + reward), None

    def strong(x: jax.Array) -> jax.Array:
        return x.astype(x.dtype)

    @jax.jit
    def play(key: jax.Array, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
        reset_key, step_key = jax.random.split(key)
        obs, states = reset_batch(env, jax.random.split(reset_key, num_envs), params)
        first = (obs, jax.tree.map(strong, states), jnp.zeros(num_envs))
        obs, _, total = jax.lax.scan(step, first, (jax.random.split(step_key, num_steps), actions))[0]
        return obs, total

    key = jax.random.key(0)
    return lambda: play(key, actions)


def cartpoles(num_steps: int, act: Callable[[Any], jax.Array] | None) -> dict[str, Callable[[], Any]]:
    """CartPole by itself and in the wrappers."""
    bare, params = s5_envs.make("PositionOnlyCartPoleEasy")
    envs = {
        "CartPole": bare,
        "Trials": Trials(bare, 16),
        "RandomProjection": RandomProjection(bare, obs_dim=4),
        "RandomProjection(Trials)": RandomProjection(Trials(bare, 16), obs_dim=4),
    }
    return {name: program(env, params, NUM_ENVS, num_steps, act) for name, env in envs.items()}


def families(num_steps: int) -> dict[str, Callable[[], Any]]:
    """MetaControl's training families in a MultiTask, and each one's slice."""
    env, params = s5_envs.make("MetaControl-v0")
    shares = zip(env.families, params.families, env.sizes(NUM_ENVS), strict=True)
    slices = {f"slice {f.name}": program(f.env, own, share, num_steps) for f, own, share in shares}
    return {"MultiTask": program(env, params, NUM_ENVS, num_steps), **slices}


def rows(seconds: dict[str, float], base: float, num_steps: int, actions: str) -> list[dict[str, Any]]:
    """A row for each program: microseconds of a step of the batch, and the time against the base's."""
    return [
        {
            "program": name,
            "actions": actions,
            "us_per_step": round(1e6 * s / num_steps, 1),
            "times_base": round(s / base, 3),
        }
        for name, s in seconds.items()
    ]


def main() -> int:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="interleaved samples per median (default 5)")
    parser.add_argument("--steps", type=int, default=300, help="steps of a sample (default 300)")
    parser.add_argument("--no-record", action="store_true", help="write no file")
    options = parser.parse_args()
    info = machine()
    found = []
    for actions, act in {"random": None, "balanced": balance}.items():
        cart = interleaved_medians(cartpoles(options.steps, act), rounds=options.rounds)
        found += rows(cart, cart["CartPole"], options.steps, actions)
    many = interleaved_medians(families(options.steps), rounds=options.rounds)
    total = sum(s for name, s in many.items() if name.startswith("slice"))
    found += rows(many, total, options.steps, "random")
    print(
        table(
            ["program", "actions", "us a step", "times base"],
            [[str(v) for v in row.values()] for row in found],
        )
    )
    print(f"base: CartPole; the sum of the slices. {NUM_ENVS} environments. Target: at most {LIMIT} times.")
    wrapped = [row for row in found if not row["program"].startswith("slice")]
    is_met = all(row["times_base"] <= LIMIT for row in wrapped)
    if not options.no_record:
        print(write_json("in-context-envs", info, found, num_envs=NUM_ENVS, target=LIMIT, met=is_met))
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
