"""With ``jax_enable_x64`` one can train, evaluate, keep and export, in the same types as without."""

from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from s5_adapters import load_policy
from s5_adapters.core.files.stablehlo import export_stablehlo
from s5_adapters.core.files.weights import save_policy
from s5_adapters.core.memories.memory import memory_names
from s5_adapters.purejax import RunOptions, Trainer, make_train, restore_policy
from tests.marks import slow
from tests.purejax.helpers import assert_same_bits, small_config


def types(tree: Any) -> list[Any]:
    return [(path, x.shape, x.dtype) for path, x in jax.tree_util.tree_leaves_with_path(tree)]


def on(env_id: str) -> dict[str, Any]:
    return {"env_id": env_id, "normalize_observations": True, "normalize_rewards": True}


CASES = [
    *({"memory": name, "memory_config": {"d_model": 8, "n_layers": 1}} for name in memory_names()),
    on("Pendulum-v1"),
    on("BattleshipEasy"),
    *slow(*map(on, ("Acrobot-v1", "CartPole-v1", "LabyrinthExploreEasy", "Catch-bsuite"))),
]


@pytest.mark.parametrize("changes", CASES)
def test_a_run_has_the_types_that_it_has_without(changes):
    """Traced alone: a carry of two types is an error then already."""
    config = small_config(**changes)
    seeds = jax.random.split(jax.random.key(0), 2)
    narrow = jax.eval_shape(make_train(config), seeds[0])
    with jax.enable_x64(True):
        assert types(jax.eval_shape(make_train(config), seeds[0])) == types(narrow)
        batched = jax.eval_shape(jax.vmap(make_train(config)), seeds)
    assert [dtype for *_, dtype in types(batched)] == [dtype for *_, dtype in types(narrow)]


def test_a_run_has_the_values_that_it_has_without():
    config = small_config(
        env_id="Pendulum-v1", normalize_observations=True, normalize_rewards=True, total_steps=64
    )
    narrow = jax.jit(make_train(config))(jax.random.key(0))
    with jax.enable_x64(True):
        wide = jax.jit(make_train(config))(jax.random.key(0))
    for name, values in narrow.metrics.items():
        np.testing.assert_allclose(wide.metrics[name], values, rtol=2e-3, atol=2e-4, err_msg=name)


@pytest.mark.slow
@pytest.mark.slow
def test_a_run_is_kept_resumed_evaluated_and_exported(tmp_path):
    config = small_config(env_id="Pendulum-v1", normalize_observations=True, total_steps=96)
    options = RunOptions(chunk_updates=1, checkpoint_every=1, evaluate_every=2, evaluation_episodes=2)
    with jax.enable_x64(True):
        trainer = Trainer(config, run_dir=tmp_path / "run", options=options)
        whole = trainer.run().state
        resumed = Trainer.resume(tmp_path / "run")
        assert_same_bits(resumed.state, whole)
        policy = restore_policy(tmp_path / "run")
        result = policy.evaluate(2)
        assert result.returns.dtype == np.float32
        save_policy(tmp_path / "p.safetensors", policy.to_portable())
        export_stablehlo(tmp_path / "p.stablehlo", policy.to_portable())
        wide = _acted(tmp_path)
    narrow = _acted(tmp_path)
    # What was trained with x64 is read without, and the other way round.
    np.testing.assert_allclose(
        restore_policy(tmp_path / "run").evaluate(2).returns, result.returns, rtol=1e-3
    )
    for one, other in zip(wide, narrow, strict=True):
        assert one.dtype == other.dtype == np.float32
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def _acted(folder: Any) -> list[np.ndarray]:
    """The actions of the policy file and of the program."""
    policy, obs = load_policy(folder / "p.safetensors"), np.array([[0.1, 0.2, -0.3], [1.0, 0.0, 2.0]])
    state, starts = policy.initial_state(2), np.ones(2, bool)
    program = jax.export.deserialize((folder / "p.stablehlo").read_bytes())
    actions = [
        policy.act(obs, state, starts)[0],
        policy.act(obs, state, starts, jax.random.key(0))[0],
        program.call(jnp.asarray(obs, jnp.float32), tuple(jax.tree.leaves(state)), starts)[0],
    ]
    return [np.asarray(action) for action in actions]
