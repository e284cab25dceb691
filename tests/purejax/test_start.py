"""Training from a portable policy: what goes into the first state, and which weights are refused."""

import dataclasses

import jax
import numpy as np
import pytest

import s5_envs
from s5_adapters.core import ActorCritic
from s5_adapters.core.files.weights import ObservationStatistics, Policy, save_policy
from s5_adapters.purejax import Trainer, build_problem
from s5_adapters.purejax.start import network_settings
from tests.envs.elsewhere import Plain
from tests.purejax.helpers import small_config

CONFIG = small_config(normalize_observations=True)


@pytest.fixture(scope="module")
def policy() -> Policy:
    config = build_problem(CONFIG).net.config
    statistics = ObservationStatistics(np.full(4, 0.5, np.float32), np.full(4, 2.0, np.float32), samples=50.0)
    return Policy(config, ActorCritic(config).init(jax.random.key(9)), statistics)


def refused(policy: Policy, tmp_path, **overrides) -> str:
    save_policy(tmp_path / "p.safetensors", policy)
    config = small_config(**({"normalize_observations": True} | overrides))
    with pytest.raises(ValueError, match=r"^weights: ") as caught:
        Trainer(config, weights=str(tmp_path / "p.safetensors"), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_first_state_holds_the_weights_and_their_statistics(policy, tmp_path):
    save_policy(tmp_path / "p.safetensors", policy)
    trainer = Trainer(CONFIG, weights=str(tmp_path / "p.safetensors"), run_dir=tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, trainer.state.params, policy.params)
    stats = trainer.state.carry.obs_stats
    np.testing.assert_array_equal(stats.mean, policy.obs_statistics.mean)
    assert float(stats.samples) == 50.0
    # A run that was stopped before its first checkpoint begins from them again.
    resumed = Trainer.resume(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, resumed.state.params, policy.params)


def test_weights_that_the_run_cannot_go_on_from_are_refused(policy, tmp_path):
    assert "memory_config['d_model'] 8, expected 16" in refused(
        policy, tmp_path, memory_config={"d_model": 16, "d_state": 8}
    )
    assert "expected normalize_observations=True, got False" in refused(
        policy, tmp_path, normalize_observations=False
    )
    without = dataclasses.replace(policy, obs_statistics=None)
    assert "expected normalize_observations=False, got True" in refused(without, tmp_path)
    tight = dataclasses.replace(policy.obs_statistics, clip=5.0)
    assert "clipped at 5, expected 1e-08 and 10" in refused(
        dataclasses.replace(policy, obs_statistics=tight), tmp_path
    )


@pytest.mark.slow
def test_image_weights_of_another_width_go_on(tmp_path):
    """A policy from elsewhere (SB3's ``features_dim``) may have a narrower last layer of the Nature CNN."""
    s5_envs.register("Pictures", Plain, space=s5_envs.spaces.Box(0, 255, (36, 36, 3), np.uint8))
    given = build_problem(small_config(env_id="Pictures")).net.config.replace(cnn_features=16)
    policy = Policy(given, ActorCritic(given).init(jax.random.key(9)))
    assert "cnn_features 16, expected 512" in refused(
        policy, tmp_path, env_id="Pictures", normalize_observations=False
    )
    config = dataclasses.replace(small_config(env_id="Pictures", total_steps=32), **network_settings(policy))
    assert config.cnn_features == 16
    trainer = Trainer(config, weights=str(tmp_path / "p.safetensors"))
    jax.tree.map(np.testing.assert_array_equal, trainer.state.params, policy.params)
    assert (trainer.run().metrics["fault"] == -1).all()
