"""A policy as an ONNX graph, run by onnxruntime, against the policy itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5_adapters.core import ActorCritic, ActorCriticConfig, Box, Discrete, MultiDiscrete, memory_names
from s5_adapters.core.files.weights import ObservationStatistics, Policy
from s5_adapters.core.memories.defaults import complete
from s5_adapters.core.network.distributions import ActionSpec

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from s5_adapters.onnx import export_onnx  # noqa: E402

STEPS, BATCH = 500, 3


def policy_of(memory: str, action: ActionSpec, obs_shape: tuple[int, ...] = (4,), **changes: Any) -> Policy:
    sizes = complete(memory, {"d_model": 8, "n_layers": 2})
    layers = {"encoder": (7,), "actor_torso": (6,), "critic_torso": (6,), "cnn_features": 16}
    config = ActorCriticConfig(
        obs_shape=obs_shape, action=action, memory=memory, memory_config=sizes, **(layers | changes)
    )
    params = ActorCritic(config).init(jax.random.key(0))
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(1)  # a fresh network prefers nothing: its logits would say little
    grown = [leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    statistics = None
    if len(obs_shape) == 1:
        mean, variance = rng.normal(size=obs_shape), rng.uniform(0.5, 2, size=obs_shape)
        statistics = ObservationStatistics(mean.astype(np.float32), variance.astype(np.float32))
    return Policy(config, jax.tree.unflatten(structure, grown), statistics)


def largest_difference(policy: Policy, path: Path, steps: int = STEPS, batch: int = BATCH) -> float:
    """Play both, each with its own state; actions must be equal where the distributions leave no doubt."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng, config = np.random.default_rng(0), policy.config
    state = policy.initial_state(batch)
    held = {f"state_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    largest = 0.0
    for t in range(steps):
        if config.is_image:
            obs = rng.integers(0, 256, (batch, *config.obs_shape), np.uint8)
        else:
            obs = rng.normal(size=(batch, *config.obs_shape)).astype(np.float32)
        starts = rng.random(batch) < (1 if t == 0 else 0.05)
        given = {"obs": obs, "episode_starts": starts, **held}
        mask = None
        if config.action_mask:
            mask = rng.random((batch, config.action.num_inputs)) < 0.5
            mask |= policy_allows_one(config.action)
            given["action_mask"] = mask
        found = dict(zip([o.name for o in session.get_outputs()], session.run(None, given), strict=True))
        inputs, _, _ = policy.evaluate(jnp.asarray(obs), state, jnp.asarray(starts))
        action, state = policy.act(obs, state, starts, action_mask=mask)
        distribution = (
            found["distribution"] if mask is None else np.where(mask, found["distribution"], inputs)
        )
        apart = [distribution - inputs]
        apart += [found[f"next_state_{i}"] - leaf for i, leaf in enumerate(jax.tree.leaves(state))]
        largest = max(largest, *(float(np.abs(x).max()) for x in apart))
        if isinstance(config.action, Box):
            largest = max(largest, float(np.abs(found["action"] - action).max()))
        else:
            np.testing.assert_array_equal(found["action"], action)
            assert found["action"].dtype == np.int32
        held = {name: found[f"next_{name}"] for name in held}
    return largest


def policy_allows_one(action: ActionSpec) -> np.ndarray:
    """The first choice of each component is always allowed."""
    sizes = action.nvec if isinstance(action, MultiDiscrete) else (action.num_inputs,)
    return np.concatenate([np.arange(n) == 0 for n in sizes])


@pytest.mark.parametrize(
    "memory",
    [
        pytest.param(name, marks=() if name in ("s5", "mamba") else pytest.mark.slow)
        for name in sorted(memory_names())
    ],
)
def test_every_memory_gives_what_act_gives(memory: str, tmp_path: Path) -> None:
    policy = policy_of(memory, Discrete(3))
    path = tmp_path / "policy.onnx"
    export_onnx(path, policy)
    assert largest_difference(policy, path) < 1e-5


@pytest.mark.parametrize(
    ("action", "changes"),
    [
        (Box((-0.1, -np.inf), (0.1, np.inf)), {"critic_memory": "separate"}),
        (MultiDiscrete((2, 3)), {"action_mask": True, "activation": "gelu"}),
        (Discrete(3), {"obs_shape": (40, 40, 3), "activation": "tanh"}),
    ],
    ids=["box", "masked multi-discrete", "image"],
)
def test_every_kind_of_action_and_observation(action: Any, changes: Any, tmp_path: Path) -> None:
    policy = policy_of("s5", action, **changes)
    path = tmp_path / "policy.onnx"
    export_onnx(path, policy)
    assert largest_difference(policy, path) < 1e-5


def test_one_file_serves_every_batch_size(tmp_path: Path) -> None:
    policy = policy_of("s5", Discrete(3))
    path = tmp_path / "policy.onnx"
    export_onnx(path, policy)
    for batch in (1, 17):
        assert largest_difference(policy, path, steps=10, batch=batch) < 1e-5


def test_the_file_holds_what_it_needs_and_says_what_it_takes(tmp_path: Path) -> None:
    policy = policy_of("s5", Discrete(3))
    path = tmp_path / "policy.onnx"
    export_onnx(path, policy)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [x.name for x in model.graph.input] == ["obs", "state_0", "state_1", "episode_starts"]
    assert [x.name for x in model.graph.output] == [
        "action",
        "distribution",
        "next_state_0",
        "next_state_1",
    ]
    assert {o.domain for o in model.opset_import} == {""}
    assert not any(x.data_location for x in model.graph.initializer)
