"""Records episodes of the installed popgym and bsuite in the format that ``s5_envs.conformance`` reads.

python -m tests.envs.record_traces FOLDER [--seed 1000] [--episodes 2] [--family repeat_first ...]
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.envs.reference import REFERENCES

VARIANTS = ("Easy", "Medium", "Hard")
FAMILIES = (*REFERENCES, "memory_chain", "wrappers")


def record_family(
    family: str, *, seed: int = 1000, episodes: int = 2, variants: tuple[str, ...] = VARIANTS
) -> dict[str, Any]:
    """Record ``episodes`` episodes of each policy and variant; the arrays of one file."""
    if family == "memory_chain":
        return _record_memory_chain(seed, episodes)
    if family == "wrappers":
        return _record_wrappers(seed)
    reference, arrays, meta = REFERENCES[family], {}, {}
    for variant in variants:
        env = reference.build(family, variant)
        log = _Log()
        noise = _watch_noise(env)
        for (name, policy), i in itertools.product(reference.policies.items(), range(episodes)):
            obs, _ = env.reset(seed=seed + i)
            log.begin(ep_policy=name, ep_seed=seed + i, reset_obs=obs, **reference.hidden(env))
            if noise:
                log.begin_more(reset_noise=noise[-1][0], reset_clean_obs=noise[-1][1])
            act = policy(env, np.random.default_rng([seed, i]))
            done, t = False, 0
            while not done:
                action = act(t)
                extras = reference.before(env)
                obs, reward, terminated, truncated, _ = env.step(action)
                extras |= reference.after(env)
                if noise:
                    extras |= {"x_noise": noise[-1][0], "x_clean_obs": noise[-1][1]}
                flags = {"terminated": bool(terminated), "truncated": bool(truncated)}
                log.step(action=action, obs=obs, reward=float(reward), **flags, **extras)
                done, t = terminated or truncated, t + 1
        arrays |= log.arrays(variant)
        meta[variant] = {"cls": type(env).__name__, "episodes": len(log.starts)}
    return arrays | {"meta": np.array(json.dumps(meta))}


def _watch_noise(env: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Log the noise that a noisy environment adds, and what it adds it to."""
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    if hasattr(env, "add_noise_to_obs"):
        add = env.add_noise_to_obs

        def watched(obs: np.ndarray) -> np.ndarray:
            noise = copy.deepcopy(env.np_random).normal(0, env.noise_sigma).astype(np.float32)
            seen.append((noise, np.array(obs, np.float32)))
            return add(obs)

        env.add_noise_to_obs = watched
        env.reset(seed=0)
    return seen


class _Log:
    """Rows of one variant."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.episode_fields: dict[str, list[Any]] = {}
        self.step_fields: dict[str, list[Any]] = {}

    def begin(self, **fields: Any) -> None:
        self.starts.append(len(self.step_fields.get("reward", ())))
        self.begin_more(**fields)

    def begin_more(self, **fields: Any) -> None:
        for name, value in fields.items():
            self.episode_fields.setdefault(name, []).append(np.array(value))

    def step(self, **fields: Any) -> None:
        for name, value in fields.items():
            self.step_fields.setdefault(name, []).append(np.array(value))

    def arrays(self, variant: str) -> dict[str, np.ndarray]:
        fields = {name: np.stack(rows) for name, rows in (self.episode_fields | self.step_fields).items()}
        fields["ep_start"] = np.array([*self.starts, len(fields["reward"])], np.int32)
        fields["ep_return"] = np.add.reduceat(fields["reward"], self.starts)
        small = {"i": np.int32, "u": np.int32}
        return {f"{variant}/{name}": x.astype(small.get(x.dtype.kind, x.dtype)) for name, x in fields.items()}


def _record_memory_chain(seed: int, episodes: int) -> dict[str, Any]:
    from bsuite.environments.memory_chain import MemoryChain

    arrays, meta = {}, {}
    for length, bits in ((1, 1), (5, 1), (12, 3), (4, 40)):
        variant, log = f"L{length}_B{bits}", _Log()
        for policy, i in itertools.product(("optimal", "wrong", "random"), range(episodes)):
            env = MemoryChain(length, bits, seed=seed + i)
            rng = np.random.default_rng([seed, i])
            obs = env.reset().observation[0]
            hidden = {"h_context": env._context, "h_query": env._query}
            log.begin(ep_policy=policy, ep_seed=seed + i, reset_obs=obs, **hidden)
            right, done = int(env._context[env._query]), False
            while not done:
                action = {"optimal": right, "wrong": 1 - right, "random": int(rng.integers(2))}[policy]
                step = env.step(action)
                done = step.last()
                flags = {"terminated": done, "truncated": False}
                log.step(action=action, obs=step.observation[0], reward=float(step.reward), **flags)
        arrays |= log.arrays(variant)
        meta[variant] = {"memory_length": length, "num_bits": bits}
    return arrays | {"meta": np.array(json.dumps(meta))}


def _record_wrappers(seed: int) -> dict[str, Any]:
    import gymnasium
    from popgym.wrappers import Antialias, DiscreteAction, Flatten, PreviousAction

    arrays, meta = {}, {}
    for family, reference in REFERENCES.items():
        if family.startswith(("noisy", "labyrinth", "velocity")):
            continue  # their hidden state cannot be recovered from what they show
        env = Flatten(Antialias(PreviousAction(reference.build(family, "Easy"))))
        if not isinstance(env.action_space, gymnasium.spaces.Box):
            env = DiscreteAction(env)
        env.action_space.seed(seed)
        name, rows = reference.prefix + "Easy", ([], [])
        obs, _ = env.reset(seed=seed)
        shown, done = [obs], False
        while not done and len(shown) <= 12:
            action = env.action_space.sample()
            obs, reward, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
            shown.append(obs)
            rows[0].append(action)
            rows[1].append(reward)
        arrays |= {
            f"{name}/flat_obs": np.stack(shown).astype(np.float64),
            f"{name}/action": np.array(rows[0]),
            f"{name}/reward": np.array(rows[1], np.float64),
        }
        meta[name] = {"chain": "DiscreteAction(Flatten(Antialias(PreviousAction(env))))"}
    return arrays | {"meta": np.array(json.dumps(meta))}


def main() -> None:
    """Record every family, or those asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--episodes", type=int, default=2, help="episodes of each policy and variant")
    parser.add_argument("--family", action="append", choices=FAMILIES)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for family in options.family or FAMILIES:
        arrays = record_family(family, seed=options.seed, episodes=options.episodes)
        np.savez_compressed(options.folder / f"{family}.npz", **arrays)
        print(
            f"{family}: {sum(len(v) for k, v in arrays.items() if k.endswith('/reward'))} steps", flush=True
        )


if __name__ == "__main__":
    main()
