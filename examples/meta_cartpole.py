"""MetaCartPole in the jitted trainer: learn to find out, trial by trial, which CartPole one is in.

    python examples/meta_cartpole.py                       # S5; quarter of an hour on two cores
    python examples/meta_cartpole.py --memory gru
    python examples/meta_cartpole.py --memory feedforward  # cannot adapt
    s5-adapters evaluate runs/meta-cartpole-* --per-trial --trials 32 --plot adaptation.png

The settings are the preset's, ``s5-adapters train --config meta-cartpole-small``.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from s5_adapters.adaptation.curves import Question, ask
from s5_adapters.adaptation.table import print_tables
from s5_adapters.presets import read_preset
from s5_adapters.purejax import Trainer
from s5_adapters.purejax.progress import make_reporter


def train(run_dir: Path, seed: int = 0, **changes: Any) -> Path:
    """Train the preset, with fields changed, into a folder, and return it."""
    config = dataclasses.replace(read_preset("meta-cartpole-small").training, **changes)
    Trainer(config, seed=seed, run_dir=run_dir, reporter=make_reporter()).run()
    return run_dir


def main() -> None:
    """Train one memory, and print its return by trial over as many trials again as in training."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--memory", default="s5", help="a name of the registry")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sizes = {} if options.memory == "feedforward" else {"d_model": 64}
    run_dir = Path("runs") / f"meta-cartpole-{options.memory}-seed{options.seed}"
    own = {} if options.memory == "s5" else {"memory": options.memory, "memory_config": sizes}
    train(run_dir, options.seed, **own)
    print_tables(ask([run_dir], Question(num_trials=32))[1])


if __name__ == "__main__":
    main()
