"""Runs on eight virtual devices, in a process of its own, and prints what it found as JSON.

A process has the devices that it began with, and the other tests want one.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from s5_adapters.purejax import A2CConfig, RunOptions, TimeLimit, Trainer
from s5_adapters.purejax.estimate import estimate
from s5_adapters.purejax.progress import Silent, Status
from s5_adapters.purejax.seeds import SeedsTrainer
from s5_adapters.purejax.split import Split
from s5_adapters.purejax.split_programs import SplitPrograms
from tests.compilation import quick_compilation
from tests.purejax import environments  # noqa: F401  registers
from tests.purejax.helpers import same_bits, small_config

UPDATES = 10
PPO = small_config(
    num_envs=16,
    num_steps=8,
    total_steps=16 * 8 * UPDATES,
    normalize_observations=True,
    normalize_rewards=True,
    entropy_coef=0.01,
)
A2C = A2CConfig(
    **{
        name: getattr(PPO, name)
        for name in ("env_id", "memory", "memory_config", "encoder", "actor_torso", "critic_torso")
    },
    num_envs=16,
    num_steps=8,
    total_steps=16 * 8 * UPDATES,
    normalize_advantages=True,
    normalize_observations=True,
)


def parity(config: Any) -> dict[str, Any]:
    """Ten updates on eight devices, and on one that shuffles in eight groups."""
    params, metrics = [], []
    for devices in (8, 1):
        programs = SplitPrograms.of(config, Split(devices, 8))
        state = programs.init_state(jax.random.key(3), np.float32(config.learning_rate))
        first = flat(state.params)
        compiled = programs.run_chunk.lower(state, np.int32(UPDATES), buffer_size=UPDATES).compile()
        if devices == 8:
            collectives = found_collectives(compiled.as_text())
        state, buffer = compiled(state, np.int32(UPDATES))
        params.append(flat(state.params))
        metrics.append({name: np.asarray(values) for name, values in buffer.items()})
    differences = {
        name: float(np.nanmax(np.abs(metrics[0][name] - metrics[1][name]), initial=0.0))
        for name in metrics[0]
    }
    return {
        "params": float(np.abs(params[0] - params[1]).max()),
        "moved": float(np.abs(params[0] - first).max()),
        "episodes": metrics[0]["episodes"].tolist(),
        "metrics": differences,
        "collectives": collectives,
    }


def flat(tree: Any) -> np.ndarray:
    """All numbers of a tree, copied: its arrays may be given away."""
    return np.concatenate([np.array(leaf).ravel() for leaf in jax.tree.leaves(tree)])


def found_collectives(program: str) -> dict[str, int]:
    """How often each kind of exchange occurs in a compiled program."""
    kinds = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter", "send", "recv")
    return {kind: len(re.findall(rf"= [^=\n]* {kind}(?:-start)?\(", program)) for kind in kinds}


class FailAt(Silent):
    """The power goes at an update."""

    def __init__(self, update: int):
        self.update = update

    def show(self, status: Status) -> None:
        if status.update == self.update:
            raise RuntimeError("the power went")


def resumed(folder: Path) -> dict[str, Any]:
    """A run on four devices: stopped and resumed on four, and on two."""
    options = RunOptions(chunk_updates=1, checkpoint_every=2)
    whole = Trainer(PPO, seed=3, run_dir=folder / "whole", options=options, devices=4).run()
    for name in ("four", "two"):
        with contextlib.suppress(RuntimeError):
            Trainer(PPO, seed=3, run_dir=folder / name, options=options, devices=4, reporter=FailAt(5)).run()
    four = Trainer.resume(folder / "four")
    begun, restored = four.update, flat((four.state.params, four.state.carry.memory_state))
    four_result = four.run()
    two = Trainer.resume(folder / "two", devices=2)
    kept = flat((two.state.params, two.state.carry.memory_state))
    two_result = two.run()
    difference = max(
        float(np.abs(np.asarray(one) - np.asarray(other)).max())
        for one, other in zip(
            jax.tree.leaves(whole.state.params), jax.tree.leaves(two_result.state.params), strict=True
        )
    )
    alone, on_four = estimate(PPO), estimate(PPO, devices=4)
    return {
        "begun": begun,
        "planned": [alone.memory_bytes, on_four.memory_bytes],
        "parameters": [alone.parameters, on_four.parameters],
        "four": same_bits(whole.state, four_result.state),
        "restored": restored.tobytes() == kept.tobytes(),
        "two": difference,
        "evaluation": two.evaluate().returns.shape[0],
    }


def seeds(folder: Path) -> dict[str, Any]:
    """Two seeds, each alone on a device; stopped by a time limit, and gone on."""
    options = RunOptions(chunk_updates=3, checkpoint_every=3)
    folders = [folder / "seed4", folder / "seed5"]
    first = SeedsTrainer(PPO, folders, seed=4, options=options, devices=2)
    first.run(TimeLimit(0.1))
    again = SeedsTrainer(PPO, folders, seed=4, options=options, devices=2, goes_on=True)
    begun = again.update
    again.run()
    alone = Trainer(PPO, seed=5).run()
    together = Trainer.resume(folders[1])
    return {
        "begun": begun,
        "difference": float(np.abs(flat(alone.state.params) - flat(together.state.params)).max()),
        "updates": [len((path / "log.jsonl").read_text().splitlines()) for path in folders],
        "folders": sorted(path.name for path in folders[0].iterdir()),
    }


if __name__ == "__main__":
    with quick_compilation():
        what = sys.argv[1]
        if what in ("ppo", "a2c"):
            found = parity({"ppo": PPO, "a2c": A2C}[what])
        else:
            found = {"resumed": resumed, "seeds": seeds}[what](Path(sys.argv[2]))
    print(json.dumps(found))
