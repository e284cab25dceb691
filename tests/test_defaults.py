"""The same words build the same memory in Stable-Baselines3, RLlib and the trainer, and what was written
before they did goes on as it was."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from gymnasium import spaces
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.models import MODEL_DEFAULTS

from s5_adapters.core import Memory, make_memory
from s5_adapters.core.memories.defaults import SIZES, carry_over, complete, complete_as_formerly
from s5_adapters.core.memories.memory import memory_names
from s5_adapters.purejax import PPOConfig, RunConfig, Trainer, build_problem, read_config, restore_policy
from s5_adapters.rllib import S5RLModule
from s5_adapters.rllib._model_config import read_model_config
from s5_adapters.rllib._model_v2 import S5Model
from s5_adapters.sb3 import S5Policy
from s5_adapters.sb3.arguments import NetworkArguments
from tests.portable import assert_agree, observe, rllib_outputs, spaces_of
from tests.purejax.helpers import small_config

WORDS: tuple[dict[str, Any], ...] = (
    {},
    {"d_model": 15},
    {"n_layers": 3},
    {"d_model": 32, "n_layers": 1},
)
OBS, ACTIONS = spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(4)
LAYERS = {"encoder": [6], "actor_torso": [7], "critic_torso": [5]}
OLD_WORDS: dict[str, Any] = {"d_model": 8, **LAYERS, "max_seq_len": 6}


# --- the same words -----------------------------------------------------------------------------------


def memories(memory: str, words: dict[str, Any]) -> dict[str, Any]:
    """What each ecosystem makes of a policy's words, before anything is compiled."""
    trainer = dict(PPOConfig(memory=memory, memory_config=words).network["memory_config"])
    return {
        "trainer": make_memory(memory, **trainer),
        "sb3": NetworkArguments(memory=memory, **words).make_memory(),
        "rllib": read_model_config({"memory": memory, **words}, OBS, ACTIONS).network.make_memory(),
    }


@pytest.mark.parametrize("words", WORDS, ids=str)
@pytest.mark.parametrize("memory", ["s5", "lru", "gru"])
def test_the_same_words_are_the_same_memory_everywhere(memory: str, words: dict[str, Any]) -> None:
    made = memories(memory, words)
    assert len(set(made.values())) == 1
    shapes = [jax.tree.leaves(m.param_shapes(16)) for m in made.values()]
    assert shapes[0] == shapes[1] == shapes[2]
    one, said = made["trainer"], {**SIZES, **words}
    assert (one.d_model, one.n_layers) == (said["d_model"], said["n_layers"])
    if memory != "gru":
        assert one.d_state == 2 * ((said["d_model"] + 1) // 2)
    if memory == "s5":
        assert (one.dt_min, one.dt_max) == (0.01, 1.0)


def test_the_networks_that_are_built_have_the_same_memory() -> None:
    words, small = {"d_model": 5}, {"encoder": [4], "actor_torso": [], "critic_torso": []}
    problem = build_problem(PPOConfig(memory_config=words, **small))
    config = problem.net.config
    obs, action = spaces_of(config)
    sb3 = S5Policy(obs, action, lambda _: 1e-3, encoder=(4,), net_arch=[], **words).to_policy()
    given = {**words, **small, "max_seq_len": 4}
    rllib = S5RLModule(observation_space=obs, action_space=action, model_config=given).to_policy()
    for policy in (sb3, rllib):
        assert policy.config.make_memory() == config.make_memory()
        shapes = jax.tree.map(np.shape, policy.params["trunk"]["memory"])
        params = jax.eval_shape(problem.net.init, jax.random.key(0))
        assert shapes == jax.tree.map(np.shape, params["trunk"]["memory"])


@pytest.mark.parametrize("memory", memory_names())
def test_every_memory_has_two_layers_of_64_and_else_its_own(memory: str) -> None:
    made = make_memory(memory, **complete(memory, {}))
    assert (made.d_model, made.n_layers) == (64, 2)
    if memory not in ("s5", "lru"):
        assert made == make_memory(memory, d_model=64, n_layers=2)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"dt_min": 0.001}, (0.001, 1.0)),
        ({"dt_max": 0.1}, (0.01, 0.1)),
        ({"dt_max": 0.005}, (0.001, 0.005)),
        ({"dt_min": 0.5}, (0.5, 1.0)),
    ],
)
def test_one_time_step_said_leaves_the_other(said: dict[str, float], expected: tuple[float, float]) -> None:
    made: Any = make_memory("s5", **complete("s5", said))
    assert (made.dt_min, made.dt_max) == expected


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"d_model": "64"}, "d_model: got '64'"),
        ({"n_blocks": 0}, "n_blocks: got 0"),
        ({"dt_max": -1.0}, "dt_max: got -1.0"),
    ],
)
def test_a_size_that_decides_another_is_checked(said: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{message}, expected [^\n]+$"):
        complete("s5", said)


def test_another_memory_takes_over_what_was_chosen_and_no_default() -> None:
    assert carry_over("s5", complete("s5", {"d_model": 32}), "mamba") == {"d_model": 32, "n_layers": 2}
    chosen = complete("s5", {"n_layers": 3, "dt_min": 0.003, "norm": "post"})
    assert carry_over("s5", chosen, "mamba") == {**SIZES, "n_layers": 3, "dt_min": 0.003, "norm": "post"}
    assert carry_over("s5", {"d_state": 32, **SIZES}, "lru") == {"d_state": 32, **SIZES}
    whole = make_memory("s5", **complete("s5", {})).config
    assert carry_over("s5", whole, "gru") == SIZES


# --- the trainer's runs from before -------------------------------------------------------------------


def test_a_run_writes_all_of_its_memory_and_an_old_one_means_the_constructors_defaults(
    tmp_path: Path,
) -> None:
    """A `config.json` that leaves something out was written when that meant what the classes say."""
    old = complete_as_formerly("s5", {"d_model": 8})
    sizes = {"d_model": 8, "n_layers": 1, "d_state": 64}
    assert old == {**sizes, "dt_min": 0.001, "dt_max": 0.1, "clip_eigenvalues": False}
    run_dir = tmp_path / "run"
    trainer = Trainer(small_config(memory_config=old, total_steps=64), run_dir=run_dir)
    trainer.run()
    path = run_dir / "config.json"
    written = json.loads(path.read_text())
    assert written["memory_config"] == old
    path.write_text(json.dumps(written | {"memory_config": {"d_model": 8}}))
    for given in (run_dir, path):
        assert read_config(given).training.memory_config == old
    resumed = Trainer.resume(run_dir)
    assert resumed.config == trainer.config
    jax.tree.map(np.testing.assert_array_equal, resumed.state.params, trainer.state.params)
    memory: Any = restore_policy(run_dir).to_portable().config.make_memory()
    assert (memory.n_layers, memory.d_state, memory.dt_max) == (1, 64, 0.1)


def test_a_file_that_is_no_runs_has_the_shared_defaults(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"memory_config": {"d_model": 32}}')
    config = read_config(path)
    assert config == RunConfig(PPOConfig(memory_config={"d_model": 32}))
    assert config.completed().training.memory_config["d_state"] == 32


# --- RLlib's checkpoints from before ------------------------------------------------------------------


def old_network(memory: str) -> dict[str, Any]:
    """What a `model_config` meant that said the width alone."""
    return OLD_WORDS | {"memory": memory, "memory_config": _rest(make_memory(memory, d_model=8))}


def _rest(memory: Memory) -> dict[str, Any]:
    return {name: value for name, value in memory.config.items() if name != "d_model"}


def module_of(model_config: dict[str, Any], seed: int = 0) -> S5RLModule:
    torch.manual_seed(seed)
    return S5RLModule(
        observation_space=OBS, action_space=ACTIONS, inference_only=False, model_config=model_config
    )


def gradient_step(module: S5RLModule, optimizer: torch.optim.Optimizer) -> None:
    rows = {name: torch.zeros(2, len(leaf)) for name, leaf in module.get_initial_state().items()}
    obs = torch.from_numpy(np.random.default_rng(3).normal(size=(2, 6, 3)).astype(np.float32))
    outputs = module.forward_train({Columns.OBS: obs, Columns.STATE_IN: rows})
    optimizer.zero_grad()
    (
        outputs[Columns.ACTION_DIST_INPUTS].square().sum() + outputs[Columns.EMBEDDINGS].square().sum()
    ).backward()
    optimizer.step()


@pytest.mark.parametrize("memory", ["s5", "lru", "gru"])
def test_an_old_rllib_modules_state_loads_where_the_same_words_now_build_another(
    memory: str, tmp_path: Path
) -> None:
    old, new = module_of(old_network(memory)), module_of(OLD_WORDS | {"memory": memory}, seed=1)
    assert new.actor_critic_config.make_memory() == make_memory(memory, **complete(memory, {"d_model": 8}))
    trainers = [(module, torch.optim.Adam(module.parameters(), 1e-2)) for module in (old, new)]
    gradient_step(*trainers[0])
    new.set_state(old.get_state())
    trainers[1][1].load_state_dict(copy.deepcopy(trainers[0][1].state_dict()))
    assert new.actor_critic_config == old.actor_critic_config
    obs, starts = observe(old.actor_critic_config, 12, 2)
    assert_agree(old.to_policy(), rllib_outputs(old, obs, starts), rllib_outputs(new, obs, starts))
    for _ in range(2):
        for module, optimizer in trainers:
            gradient_step(module, optimizer)
    for one, other in zip(old.parameters(), new.parameters(), strict=True):
        torch.testing.assert_close(one, other)

    new.save_to_path(tmp_path / "again")
    again: Any = RLModule.from_checkpoint(tmp_path / "again")
    assert again.model_config["memory_config"] == _rest(make_memory(memory, d_model=8))
    assert_agree(new.to_policy(), rllib_outputs(new, obs, starts), rllib_outputs(again, obs, starts))


def test_a_module_that_says_its_sizes_takes_no_others() -> None:
    old, new = module_of(old_network("s5")), module_of(OLD_WORDS | {"n_layers": 2, "d_state": 8})
    with pytest.raises(RuntimeError, match="size mismatch for"):
        new.set_state(old.get_state())
    assert new.actor_critic_config.make_memory().n_layers == 2


def test_target_networks_of_an_old_state_load_too() -> None:
    old, new = module_of(old_network("s5")), module_of(OLD_WORDS, seed=1)
    old.make_target_networks()
    new.make_target_networks()
    new.set_state(old.get_state())
    for one, other in zip(old.old_network.parameters(), new.old_network.parameters(), strict=True):
        assert torch.equal(one, other)
        assert not other.requires_grad


def test_an_old_state_of_the_old_api_stack_loads_and_trains_on() -> None:
    def model_of(words: dict[str, Any]) -> S5Model:
        own = {name: value for name, value in words.items() if name != "max_seq_len"}
        return S5Model(OBS, ACTIONS, 4, MODEL_DEFAULTS, "model", **own)

    old, new = model_of(old_network("s5")), model_of(OLD_WORDS)
    optimizer, obs = torch.optim.Adam(new.parameters(), 1e-2), torch.randn(6, 3)

    def play(model: S5Model) -> torch.Tensor:
        (state,) = model.get_initial_state()
        logits, _ = model({"obs": obs}, [state[None].repeat(2, 1)], torch.full((2,), 3))
        return logits

    built = play(new)  # as RLlib does while it builds a policy, and keeps the graph
    new.load_state_dict(old.state_dict())
    assert len(old.get_initial_state()[0]) == len(new.get_initial_state()[0]) == 64
    before = play(new)
    assert built.requires_grad
    torch.testing.assert_close(before, play(old))
    before.square().sum().backward()
    optimizer.step()
    assert not torch.equal(play(new), before)
