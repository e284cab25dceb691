"""The recipes of the docs, registered from outside: memories keep the contract, algorithms train."""

from __future__ import annotations

import dataclasses
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5_adapters import load_policy
from s5_adapters.bench.spec import FRAMEWORKS
from s5_adapters.cli import main
from s5_adapters.core import make_memory
from s5_adapters.core.memories import memory as registry
from s5_adapters.purejax import PPOConfig, RunOptions, Trainer, restore_policy
from s5_adapters.purejax.algorithms import algorithm as algorithms
from tests.purejax.helpers import assert_same_bits, small_config

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, ALGORITHM_PAGE = DOCS / "add-a-memory.md", DOCS / "add-an-algorithm.md"
NAMES = ("averages", "previous")
LENGTH, BATCH, WIDTH = 12, 2, 5


def snippets(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)


@pytest.fixture(scope="module")
def use() -> Iterator[str]:
    """Run the page's definitions; what it does with them, its last snippet, is for the test."""
    before = dict(registry._REGISTRY)
    *definitions, use = snippets(PAGE)
    exec(compile("\n".join(definitions), str(PAGE), "exec", dont_inherit=True), {"__name__": "recipe"})
    yield use
    registry._REGISTRY.clear()
    registry._REGISTRY.update(before)


@pytest.mark.usefixtures("use")
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_keeps_the_contract(name: str) -> None:
    memory = make_memory(name, d_model=8, n_layers=1)
    params = memory.init(jax.random.key(0), WIDTH)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    x = np.random.default_rng(0).normal(size=(LENGTH, BATCH, WIDTH)).astype(np.float32)
    starts = np.zeros((LENGTH, BATCH), bool)
    starts[5] = True
    apply: Any = jax.jit(memory.apply)
    state, y = apply(params, memory.initial_state(BATCH), x, starts)
    # Packed equals unpacked, and a NaN before a reset does not cross it.
    _, alone = apply(params, memory.initial_state(BATCH), x[5:], starts[5:] & False)
    np.testing.assert_allclose(y[5:], alone, rtol=2e-5, atol=2e-5)
    dirty = x.copy()
    dirty[4] = np.nan
    np.testing.assert_array_equal(apply(params, memory.initial_state(BATCH), dirty, starts)[1][5:], y[5:])
    # Steps equal the sequence.
    carried, prepared, step = memory.initial_state(BATCH), memory.prepare(params), jax.jit(memory.step)
    for t in range(LENGTH):
        carried, y_t = step(prepared, carried, x[t], starts[t])
        np.testing.assert_allclose(y_t, y[t], rtol=2e-5, atol=2e-5)
    for ours, theirs in zip(jax.tree.leaves(carried), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


def test_a_recipe_trains_by_its_name(use: str) -> None:
    small = small_config(memory="feedforward", memory_config={"d_model": 8, "n_layers": 1}, total_steps=64)
    sizes = {field.name: getattr(small, field.name) for field in dataclasses.fields(small)}
    shrunk: list[PPOConfig] = []

    def shrink(config: PPOConfig) -> PPOConfig:
        shrunk.append(PPOConfig(**sizes | {"memory": config.memory}))
        return shrunk[-1]

    names: dict[str, Any] = {"shrink": shrink}
    source = use.replace("Trainer(config)", "Trainer(shrink(config))")
    exec(compile(source, str(PAGE), "exec", dont_inherit=True), names)
    fresh = Trainer(shrunk[0])
    assert shrunk[0].memory == "averages"
    moved = jax.tree.map(
        lambda one, other: float(jnp.abs(one - other).max()),
        names["trainer"].state.params["trunk"]["memory"],
        fresh.state.params["trunk"]["memory"],
    )
    assert all(change > 0 for change in jax.tree.leaves(moved))


@pytest.fixture
def my_memories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with the page's definitions in a module, which nothing has imported yet."""
    before = dict(registry._REGISTRY)
    for name in NAMES:
        registry._REGISTRY.pop(name, None)
    *definitions, _ = snippets(PAGE)
    (tmp_path / "my_memories.py").write_text("\n".join(definitions))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("my_memories", None)
    registry._REGISTRY.clear()
    registry._REGISTRY.update(before)


@pytest.mark.slow  # starts a process for each framework, one of them with Ray: a minute
def test_a_recipe_is_benchmarked_by_its_name(my_memories: Path) -> None:
    command = "bench run --import my_memories --memories averages --envs RepeatPreviousEasy --steps 3328"
    assert main([*command.split(), "--output", "sweep"]) == 0
    runs = sorted((my_memories / "sweep" / "runs").glob("*.json"))
    assert [file.name.split("-averages-")[0] for file in runs] == [
        f"RepeatPreviousEasy-{framework}" for framework in sorted(FRAMEWORKS)
    ]


@pytest.mark.usefixtures("my_memories")
def test_a_memory_that_nothing_registered_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "run", "--memories", "averages"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "memories: got 'averages', expected" in line


SMALL = {
    "memory_config": {"d_model": 8, "n_layers": 1},
    "encoder": [8],
    "actor_torso": [],
    "critic_torso": [],
    "num_envs": 4,
    "num_steps": 8,
    "total_steps": 320,
    "entropy_coef": 0.02,
}


@pytest.fixture
def reinforce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The algorithm of the recipe, in a module of the current folder; forgotten afterwards."""
    before = dict(algorithms._REGISTRY)
    definition, _ = snippets(ALGORITHM_PAGE)
    (tmp_path / "my_algorithms.py").write_text(definition)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import my_algorithms  # type: ignore[import-not-found]

    yield my_algorithms.Reinforce
    sys.modules.pop("my_algorithms", None)
    algorithms._REGISTRY.clear()
    algorithms._REGISTRY.update(before)


def test_an_algorithm_from_outside_trains_resumes_evaluates_and_exports(
    reinforce: Any, tmp_path: Path
) -> None:
    config = reinforce.from_dict(SMALL)
    use = snippets(ALGORITHM_PAGE)[1].replace("Trainer(config, ", "Trainer(small, options=options, ")
    names = {"Reinforce": reinforce, "small": config, "options": RunOptions(checkpoint_every=6)}
    exec(compile(use, str(ALGORITHM_PAGE), "exec", dont_inherit=True), names)
    whole: Any = names["trainer"]
    run_dir = tmp_path / "runs" / "reinforce"
    shutil.rmtree(run_dir / "checkpoints" / "10")
    resumed = Trainer.resume(run_dir)
    assert (resumed.update, type(resumed.config), resumed.config) == (6, reinforce, config.completed())
    assert_same_bits(resumed.run().state, whole.state)
    for leaf, first in zip(
        jax.tree.leaves(resumed.state.params["trunk"]["memory"]),
        jax.tree.leaves(Trainer(config).state.params["trunk"]["memory"]),
        strict=True,
    ):
        assert not np.array_equal(leaf, first)
    assert np.isfinite(restore_policy(run_dir).evaluate(3).mean)
    assert main(["export", str(run_dir), "-o", "p.safetensors"]) == 0
    assert load_policy(tmp_path / "p.safetensors").training["config"]["algorithm"] == "reinforce"


def test_the_command_line_takes_an_algorithm_from_outside(
    reinforce: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del sys.modules["my_algorithms"], algorithms._REGISTRY["reinforce"]
    sizes = [
        word
        for name, value in SMALL.items()
        for word in [
            f"--{name.replace('_', '-')}",
            *(
                [f"{key}={item}" for key, item in value.items()]
                if isinstance(value, dict)
                else map(str, value if isinstance(value, list) else [value])
            ),
        ]
    ]
    train = ["train", "--algorithm", "reinforce", "--quiet", "--run-dir", "run", *sizes]
    assert main(train) == 2
    assert "algorithm: got 'reinforce', expected one of" in capsys.readouterr().err
    assert main([*train, "--import", "my_algoritms"]) == 2
    assert "import: my_algoritms: No module named" in capsys.readouterr().err
    assert main([*train, "--import", "my_algorithms"]) == 0
    assert main(["train", "--import", "my_algorithms", "--resume", "run", "--quiet"]) == 0
    assert main(["evaluate", "--import", "my_algorithms", "run", "--episodes", "2"]) == 0
    assert "RepeatPreviousEasy, s5, after 10 of 10 updates" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["train", "--import", "my_algorithms", "--algorithm", "reinforce", "--help"])
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Weight of the entropy bonus. (default: 0.01)" in out
    assert "--clip-range" not in out
