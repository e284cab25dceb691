"""Make the zoo: trained policies of a dozen tasks, small files with their returns.

    python scripts/zoo.py [--only NAME ...] [--folder releases/zoo] [--episodes 200]

Each task is one `s5-adapters train` (the options stand in `TASKS`), of which the best evaluated policy is
kept, `NAME.safetensors`, and played for `--episodes` episodes. What is there already is not trained again:
its return is in `scores.json`, of which `README.md` is made.
"""

from __future__ import annotations

import argparse
import json
import shlex
import tempfile
from pathlib import Path
from typing import Any, Final

import jax

from s5_adapters.cli import main as s5_adapters
from s5_adapters.core.files.weights import load_policy, write_whole
from s5_adapters.purejax.restore import from_file

LARGEST: Final = 1_000_000
"""Bytes of a file."""

UNBOUNDED: Final = "--memory-config clip_eigenvalues=false"
"""The default when these policies were made, as was no ``target_kl``."""
SMALL: Final = f"--num-envs 64 --num-steps 104 --evaluate-every 25 --target-kl None {UNBOUNDED}"
CARDS: Final = "--gamma 0.9 --gae-lambda 0.8 --entropy-coef 0.01"
"""Where an answer is rewarded at once."""
MASKED: Final = "--env-kwargs action_mask=true --entropy-coef 0.01"
CHAIN: Final = "--num-steps 65 --gamma 0 --gae-lambda 0 --normalize-observations"
TASKS: Final = {
    "battleship-easy-masked": f"--env BattleshipEasy {MASKED} --total-steps 3e6",
    "count-recall-easy": f"--env CountRecallEasy {CARDS} --total-steps 6e6",
    "higher-lower-easy": f"--env HigherLowerEasy {CARDS} --total-steps 2e6",
    "memory-chain-64": f"--env MemoryChain-bsuite --env-kwargs memory_length=64 {CHAIN} --total-steps 1e6",
    "minesweeper-easy-masked": f"--env MineSweeperEasy {MASKED} --total-steps 5e6",
    "multiarmed-bandit-easy": f"--env MultiarmedBanditEasy {CARDS} --total-steps 3e6",
    "noisy-position-only-cartpole": "--env NoisyPositionOnlyCartPoleEasy --total-steps 3e6",
    "position-only-cartpole": "--env PositionOnlyCartPoleMedium --total-steps 2e6",
    "position-only-pendulum": "--env PositionOnlyPendulumMedium --total-steps 3e6 --normalize-rewards",
    "repeat-first-easy": (
        f"--env RepeatFirstEasy {CARDS} --total-steps 3e6 {UNBOUNDED} dt_min=0.001 dt_max=0.1"
    ),
    "repeat-previous-easy": f"--env RepeatPreviousEasy {CARDS} --total-steps 1e6",
    "repeat-previous-medium": (
        f"--env RepeatPreviousMedium {CARDS} --total-steps 8e6 {UNBOUNDED} dt_min=0.003 dt_max=0.1"
    ),
    "velocity-only-cartpole": "--env VelocityOnlyCartPoleMedium --total-steps 2e6",
}
"""Options of `s5-adapters train` after `SMALL`."""


def make(name: str, folder: Path) -> None:
    """Train one task's policy and put its best into the folder.

    Raises:
        RuntimeError: the training failed, or the file is too large.
    """
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / name
        options = shlex.split(f"{SMALL} {TASKS[name]} --keep-best --quiet")
        if s5_adapters(["train", "--run-dir", str(run), *options]) != 0:
            raise RuntimeError(f"{name}: training failed")
        content = (run / "best.safetensors").read_bytes()
    if len(content) > LARGEST:
        raise RuntimeError(f"{name}: {len(content)} bytes, expected at most {LARGEST}")
    write_whole(folder / f"{name}.safetensors", content)


def score(path: Path, episodes: int) -> dict[str, Any]:
    """Play one policy, and its network with random weights: nearly even choices among what is allowed."""
    policy = from_file(path)
    result = policy.evaluate(episodes, seed=0)
    untrained = policy._replace(params=policy.problem.net.init(jax.random.key(0)), obs_stats=None)
    return {
        "env_id": policy.config.training.env_id,
        "episodes": episodes,
        "mean_return": result.mean,
        "standard_error": result.standard_error,
        "untrained_return": untrained.evaluate(episodes, seed=0).mean,
        "steps": load_policy(path).training["steps"],
    }


def table(scores: dict[str, dict[str, Any]]) -> str:
    """Return the zoo's README.md."""
    lines = [
        "# Trained policies",
        "",
        "Made by `python scripts/zoo.py`, which holds the options of each. Returns are of fresh episodes,",
        "with their standard error; beside them that of the same network with random weights.",
        "`s5-adapters evaluate FILE --render out.gif` plays one, and every ecosystem loads them",
        "([portable weights](../../docs/weights.md)).",
        "",
        "| file | environment | steps | return | untrained | episodes |",
        "|---|---|---|---|---|---|",
    ]
    for name, told in sorted(scores.items()):
        mean = f"{told['mean_return']:.3f} ± {told['standard_error']:.3f}"
        untrained, episodes = f"{told['untrained_return']:.3f}", str(told["episodes"])
        row = f"`{name}.safetensors`", told["env_id"], f"{told['steps']:,}", mean, untrained, episodes
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Make what is missing, play it, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--folder", type=Path, default=Path("releases/zoo"))
    parser.add_argument("--episodes", type=int, default=200)
    arguments = parser.parse_args()
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    known = folder / "scores.json"
    scores: dict[str, dict[str, Any]] = json.loads(known.read_text()) if known.exists() else {}
    for name in arguments.only:
        path = folder / f"{name}.safetensors"
        if not path.exists():
            make(name, folder)
            scores.pop(name, None)
        if name not in scores:
            scores[name] = score(path, arguments.episodes)
            write_whole(known, (json.dumps(scores, indent=2, sort_keys=True) + "\n").encode())
            write_whole(folder / "README.md", table(scores).encode())
            print(f"{name}: {scores[name]['mean_return']:.3f}", flush=True)


if __name__ == "__main__":
    main()
