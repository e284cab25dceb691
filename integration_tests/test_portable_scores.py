"""A policy scores the same in the jitted trainer, in Stable-Baselines3 and in RLlib."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from integration_tests._ecosystems import in_rllib, in_sb3, standard_errors_apart
from s5_adapters.core.files.weights import save_policy
from s5_adapters.purejax import PPOConfig, Trainer, restore_policy
from s5_adapters.purejax.restore import from_file

EPISODES = 200
ZOO = Path(__file__).parents[1] / "releases" / "zoo"
SCORES = json.loads((ZOO / "scores.json").read_text())

pytestmark = [
    pytest.mark.slow,  # trains for about a minute, plays for ten
    pytest.mark.full_compilation,
    pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*Overriding environment rllib-single-agent-env-v0:UserWarning"),
]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("env_id", ["RepeatPreviousEasy", "PositionOnlyCartPoleEasy"])
def test_it_scores_the_same_in_all_three(env_id: str, tmp_path: Path) -> None:
    normalize = env_id == "PositionOnlyCartPoleEasy"
    config = PPOConfig(env_id=env_id, total_steps=150_000, normalize_observations=normalize)
    Trainer(config, run_dir=tmp_path / "run").run()
    restored = restore_policy(tmp_path / "run")
    path = tmp_path / "policy.safetensors"
    save_policy(path, restored.to_portable())

    mine = restored.evaluate(EPISODES).returns
    assert standard_errors_apart(in_sb3(path, EPISODES), mine) <= 2
    assert standard_errors_apart(in_rllib(path, EPISODES), mine) <= 2


@pytest.mark.parametrize("name", SCORES)
def test_a_policy_of_the_zoo_scores_in_all_three_what_its_page_says(name: str) -> None:
    """Chance puts one comparison in twenty more than two standard errors apart: it is played longer."""
    path = ZOO / f"{name}.safetensors"
    mine = from_file(path).evaluate(EPISODES, seed=0)
    assert mine.mean == pytest.approx(
        SCORES[name]["mean_return"], abs=0.02
    )  # another processor rounds otherwise
    for play in (in_sb3, in_rllib):
        apart = standard_errors_apart(play(path, EPISODES), mine.returns)
        print(f"{name} {play.__name__}: {apart:.2f} standard errors")
        if apart > 2:
            more = 4 * EPISODES
            apart = standard_errors_apart(play(path, more), from_file(path).evaluate(more, seed=1).returns)
            print(f"{name} {play.__name__}, {more} episodes: {apart:.2f} standard errors")
        assert apart <= 2
