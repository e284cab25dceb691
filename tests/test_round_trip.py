"""One policy in all three: around the circle unchanged, and the same distributions and values in each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s5_adapters import load_policy, save_policy
from s5_adapters.core import Box, Discrete, MultiDiscrete
from s5_adapters.core.network.config import ACTIVATIONS, CRITIC_MEMORIES
from s5_adapters.purejax import Trainer, restore_policy
from tests.marks import slow
from tests.portable import (
    assert_agree,
    core_outputs,
    in_rllib,
    in_sb3,
    make_policy,
    observe,
    rllib_outputs,
    sb3_outputs,
)
from tests.purejax.helpers import small_config

STEPS = 500


@pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning")
@pytest.mark.parametrize("normalize", [True, *slow(False)])
def test_trainer_to_sb3_to_rllib_to_trainer_ends_with_identical_arrays(
    tmp_path: Path, normalize: bool
) -> None:
    config = small_config(normalize_observations=normalize, total_steps=64)
    first = Trainer(config, run_dir=tmp_path / "run")
    first.run()
    original = restore_policy(tmp_path / "run").to_portable()
    files = [tmp_path / f"{i}.safetensors" for i in range(3)]
    save_policy(files[0], original)
    save_policy(files[1], in_sb3(str(files[0]), original.config).to_policy())
    save_policy(files[2], in_rllib(str(files[1]), original.config).to_policy())
    second = Trainer(config, weights=str(files[2]), run_dir=tmp_path / "again")
    jax.tree.map(np.testing.assert_array_equal, second.state.params, first.state.params)
    jax.tree.map(np.testing.assert_array_equal, second.state.carry.obs_stats, first.state.carry.obs_stats)
    assert load_policy(files[2]).config == original.config


MEMORIES = {
    "s5": {"d_model": 8, "d_state": 8},
    "gru": {"d_model": 6},
    "lstm": {"d_model": 6},
    "feedforward": {"d_model": 6},
}


@st.composite
def policies(draw: st.DrawFn) -> Any:
    """Portable architectures and spaces of every kind, with random weights."""
    memory = draw(st.sampled_from([*MEMORIES, "s5"]))
    widths = st.lists(st.integers(1, 6), max_size=2).map(tuple)
    bound = st.floats(0.25, 4, width=32)
    action = draw(
        st.one_of(
            st.integers(2, 5).map(Discrete),
            st.lists(st.integers(2, 4), min_size=1, max_size=3).map(lambda nvec: MultiDiscrete(tuple(nvec))),
            st.lists(bound, min_size=1, max_size=3).map(lambda b: Box(tuple(-x for x in b), tuple(b))),
        )
    )
    return make_policy(
        seed=draw(st.integers(0, 2**16)),
        statistics=draw(st.booleans()),
        obs_shape=draw(st.integers(1, 5).map(lambda n: (n,)) | st.just((36, 37, 1))),
        action=action,
        memory=memory,
        memory_config=MEMORIES[memory] | {"n_layers": draw(st.integers(1, 2))},
        encoder=draw(widths),
        actor_torso=draw(widths),
        critic_torso=draw(widths),
        activation=draw(st.sampled_from(sorted(ACTIVATIONS))),
        critic_memory=draw(st.sampled_from(CRITIC_MEMORIES)),
        cnn_features=5,
    )


def check_agreement(policy: Any) -> None:
    obs, starts = observe(policy.config, STEPS, 2)
    mine = core_outputs(policy, obs, starts)
    assert_agree(policy, mine, sb3_outputs(in_sb3(policy, policy.config), obs, starts))
    assert_agree(policy, mine, rllib_outputs(in_rllib(policy, policy.config), obs, starts))


@given(policies())
@settings(max_examples=2)
def test_all_three_agree_over_500_steps_with_resets(policy: Any) -> None:
    check_agreement(policy)


@pytest.mark.slow  # each architecture compiles about ten programs: minutes
@given(policies())
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
def test_all_three_agree_for_many_architectures(policy: Any) -> None:
    check_agreement(policy)
    jax.clear_caches()
