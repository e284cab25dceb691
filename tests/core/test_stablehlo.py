"""A policy as a StableHLO program: what it gives is what the policy gives, where nothing but JAX is there."""

import subprocess
import sys

import jax
import jax.export
import numpy as np
import pytest

from s5_adapters.core import Box
from s5_adapters.core.files.stablehlo import export_stablehlo
from s5_adapters.core.files.weights import save_policy
from tests.core.test_weights import make_policy, with_statistics
from tests.marks import slow

PROGRAM = """
import sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"flax", "torch", "gymnax", "safetensors", "s5_adapters", "s5_envs"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Forbid())
import jax.export
import numpy as np
program = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
given = np.load(sys.argv[2])
state = tuple(np.zeros((3, *leaf.shape[1:]), leaf.dtype) for leaf in program.in_avals[1:-1])
actions = []
for obs, starts in zip(given["obs"], given["starts"]):
    action, state = program.call(obs, state, starts)
    actions.append(action)
np.testing.assert_allclose(np.stack(actions), given["actions"], atol=1e-6)
print("same")
"""


def acts(policy, obs, starts):
    state, actions = policy.initial_state(obs.shape[1]), []
    for x, start in zip(obs, starts, strict=True):
        action, state = policy.act(x, state, start)
        actions.append(np.asarray(action))
    return np.stack(actions)


def inputs(policy, steps=8, batch=3):
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(steps, batch, *policy.config.obs_shape)).astype(np.float32)
    if policy.config.is_image:
        obs = rng.integers(0, 256, obs.shape, np.uint8)
    return obs, rng.random((steps, batch)) < 0.3


def test_it_acts_in_a_process_that_has_only_jax(tmp_path):
    policy = with_statistics(make_policy(action=Box((-0.002, -1.0), (0.002, 1.0)), critic_memory="separate"))
    obs, starts = inputs(policy)
    actions = acts(policy, obs, starts)
    assert np.abs(actions[..., 0]).max() == np.float32(0.002)
    export_stablehlo(tmp_path / "policy.stablehlo", policy)
    np.savez(tmp_path / "given.npz", obs=obs, starts=starts, actions=actions)
    files = [str(tmp_path / name) for name in ("policy.stablehlo", "given.npz")]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *files], capture_output=True, text=True)
    assert done.stdout == "same\n", done.stderr


@pytest.mark.parametrize(
    "changes",
    [
        {"memory": "attention", "memory_config": {"d_model": 8}},
        *slow(
            {"memory": "feedforward", "memory_config": {"d_model": 8}},
            {"memory": "lstm", "memory_config": {"d_model": 8}},
        ),
        {"obs_shape": (36, 36, 1), "cnn_features": 4, "encoder": ()},
    ],
    ids=["attention", "feedforward", "lstm", "image"],
)
def test_every_network_exports(tmp_path, changes):
    policy = make_policy(**changes)
    path = tmp_path / "policy.stablehlo"
    export_stablehlo(path, policy)
    program = jax.export.deserialize(bytearray(path.read_bytes()))
    obs, starts = inputs(policy, steps=1)
    action, after = program.call(obs[0], tuple(jax.tree.leaves(policy.initial_state(3))), starts[0])
    np.testing.assert_array_equal(action, acts(policy, obs, starts)[0])
    assert len(after) == len(jax.tree.leaves(policy.initial_state(3)))
    assert {"cpu", "cuda"} <= set(program.platforms)
    assert [file.name for file in tmp_path.iterdir()] == ["policy.stablehlo"]


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "policy.safetensors"
    save_policy(path, make_policy())
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    for write in (save_policy, export_stablehlo):
        with pytest.raises(OSError, match="No space left"):
            write(path, make_policy())
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["policy.safetensors"]
