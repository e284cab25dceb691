"""The program of ``make demo``: S5 learns a memory task in about a minute; a policy without memory does not.

RepeatPreviousEasy deals a shuffled deck, card by card, and asks for the suit of the card three steps back.
Played from the card on show alone, all that can be known is that fewer of its suit are left, which leaves the
return below -0.4; perfect memory earns 1.
"""

import argparse
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

from s5_adapters.core.files.weights import save_policy
from s5_adapters.plot import plot_runs
from s5_adapters.purejax import (
    InterruptedRunError,
    NonFiniteError,
    PPOConfig,
    RunOptions,
    Trainer,
    restore_policy,
)
from s5_adapters.purejax.claim import FolderTakenError, claim_existing
from s5_adapters.purejax.progress import make_reporter
from s5_adapters.purejax.run_folder import CONFIG_NAME

TARGET = 0.95
EPISODES = 512
FOLDER = Path("runs") / "demo"
# Rewards come at once here, so a short horizon learns fastest; the entropy bonus keeps the policy from
# settling for two suits taken for one (a return of 0.5), and annealing ends the run at its best.
_SHARED = PPOConfig(gamma=0.9, gae_lambda=0.8, entropy_coef=0.01)
CONFIGS = {
    "s5": replace(_SHARED, memory="s5", memory_config={"d_model": 64, "n_layers": 2}),
    "feedforward": replace(_SHARED, memory="feedforward", memory_config={"d_model": 64, "n_layers": 2}),
}


def main(argv: list[str] | None = None) -> int:
    """Train both, print the returns and where everything is; 1 if S5 stays below the target."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m s5_adapters.demo", description=summary)
    parser.add_argument("--seed", type=int, default=0, help="seed of both runs (default: 0)")
    seed = parser.parse_args(argv).seed
    if seed < 0:
        parser.error(f"--seed: got {seed}, expected an integer >= 0")

    started = time.perf_counter()
    try:
        returns = {memory: train(config, seed, FOLDER / memory) for memory, config in CONFIGS.items()}
    except (InterruptedRunError, NonFiniteError) as error:
        print(error, file=sys.stderr)
        return 1
    except FolderTakenError as error:
        print(error, file=sys.stderr)
        return 2
    seconds = time.perf_counter() - started
    plot_runs([FOLDER / memory for memory in CONFIGS], FOLDER / "returns.png")
    save_policy(FOLDER / "policy.safetensors", restore_policy(FOLDER / "s5").to_portable())

    print(f"\nmean episodic return over {EPISODES} fresh episodes, after {seconds:.0f} s in all:")
    print(f"  S5             {returns['s5']:6.3f}")
    print(f"  without memory {returns['feedforward']:6.3f}")
    print(f"learning curve   {FOLDER / 'returns.png'}")
    print(f"policy           {FOLDER / 'policy.safetensors'}")
    print(f"logs             {FOLDER / 's5' / 'log.jsonl'}, {FOLDER / 'feedforward' / 'log.jsonl'}")
    print(f"watch it         {command_line()} evaluate {FOLDER / 's5'} --render {FOLDER / 'episode.gif'}")
    if returns["s5"] < TARGET:
        print(f"S5 ended below {TARGET}: something is wrong", file=sys.stderr)
        return 1
    return 0


def command_line() -> str:
    """Return how to call ``s5-adapters``: by its name, or by its path where that does not find it."""
    beside = Path(sys.executable).with_name("s5-adapters")
    return "s5-adapters" if shutil.which("s5-adapters") == str(beside) else os.path.relpath(beside)


def train(config: PPOConfig, seed: int, run_dir: Path) -> float:
    """Train, replacing the run that an earlier demo left there; return the mean return afterwards.

    Raises:
        FolderTakenError: another demo is running there.
    """
    if (run_dir / CONFIG_NAME).is_file():
        earlier = claim_existing(run_dir)
        shutil.rmtree(run_dir)
        earlier.release()
    options = RunOptions(evaluation_episodes=EPISODES)
    reporter = make_reporter(label=config.memory)
    trainer = Trainer(config, seed=seed, run_dir=run_dir, options=options, reporter=reporter)
    trainer.run()
    return trainer.evaluate().mean


if __name__ == "__main__":
    sys.exit(main())
