"""Policy files: what was saved acts the same after loading, and no damaged or hostile file ever loads."""

import json
import math
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from s5_adapters.core import ActorCritic, ActorCriticConfig, Box, Discrete, MultiDiscrete
from s5_adapters.core.files.weights import (
    ObservationStatistics,
    Policy,
    PolicyFileError,
    _digest,
    _split,
    load_policy,
    save_policy,
)
from tests.marks import slow


def make_policy(**changes):
    settings = {
        "obs_shape": (5,),
        "action": Discrete(3),
        "memory_config": {"d_model": 8, "d_state": 4, "n_layers": 2},
        "encoder": (6,),
        "actor_torso": (7,),
        "critic_torso": (),
    } | changes
    config = ActorCriticConfig(**settings)
    return Policy(config, ActorCritic(config).init(jax.random.key(3)))


def with_statistics(policy):
    shape = policy.config.obs_shape
    statistics = ObservationStatistics(
        np.linspace(-1, 1, int(np.prod(shape))).reshape(shape).astype(np.float32),
        np.full(shape, 4.0, np.float32),
    )
    return Policy(policy.config, policy.params, statistics, "Env-v0", {"k": 4}, {"steps": 10})


BOX = Box((-1.0, float("-inf")), (0.5, float("inf")))


@pytest.mark.parametrize(
    ("critic_memory", "memory", "action"),
    [
        ("shared", "s5", Discrete(3)),
        ("shared_detached", "s5", BOX),
        ("separate", "s5", MultiDiscrete((2, 4))),
        *slow(
            ("none", "s5", Discrete(3)),
            ("separate", "gru", BOX),
            ("shared", "feedforward", MultiDiscrete((2, 4))),
        ),
    ],
)
def test_a_loaded_policy_is_the_saved_one(tmp_path, critic_memory, memory, action):
    saved = with_statistics(
        make_policy(critic_memory=critic_memory, memory=memory, memory_config={"d_model": 8}, action=action)
    )
    path = tmp_path / "policy.safetensors"
    save_policy(path, saved)
    loaded = load_policy(path)

    assert loaded.config == saved.config
    assert (loaded.env_id, loaded.env_kwargs, loaded.training) == ("Env-v0", {"k": 4}, {"steps": 10})
    assert jax.tree.structure(loaded.params) == jax.tree.structure(saved.params)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, saved.params)
    np.testing.assert_array_equal(loaded.obs_statistics.mean, saved.obs_statistics.mean)
    assert path.stat().st_size > 0
    assert [p.name for p in tmp_path.iterdir()] == ["policy.safetensors"]


def test_acting_follows_the_network_over_resets_and_clips_to_the_bounds():
    policy = with_statistics(make_policy(action=Box((-0.001, -0.001), (0.001, 0.001))))
    steps, batch = 20, 3
    obs = jax.random.normal(jax.random.key(0), (steps, batch, 5)) * 30
    starts = jax.random.uniform(jax.random.key(1), (steps, batch)) < 0.2
    statistics = policy.obs_statistics
    normalised = jnp.clip((obs - statistics.mean) / jnp.sqrt(statistics.variance + 1e-8), -10, 10)
    _, inputs, values = policy.net.apply(policy.params, policy.initial_state(batch), normalised, starts)
    state = policy.initial_state(batch)
    for t in range(steps):
        got, value, _ = policy.evaluate(obs[t], state, starts[t])
        action, state = policy.act(obs[t], state, starts[t])
        np.testing.assert_allclose(got, inputs[t], atol=1e-5)
        np.testing.assert_allclose(value, values[t], atol=1e-5)
        np.testing.assert_allclose(action, np.clip(inputs[t][:, :2], -0.001, 0.001), atol=1e-5)
    drawn, _ = policy.act(obs[0], state, starts[0], key=jax.random.key(0))
    assert np.abs(np.asarray(drawn)).max() <= np.float32(0.001)
    assert len(np.unique(np.asarray(drawn))) > 1


@pytest.mark.parametrize(
    ("obs", "starts", "message"),
    [
        (np.zeros((2, 4)), np.zeros(2, bool), r"obs: got shape \(2, 4\)"),
        (np.zeros(5), np.zeros(1, bool), r"obs: got shape \(5,\)"),
        (np.zeros((2, 5)), np.zeros(3, bool), r"episode_starts: got shape \(3,\), expected \(2,\)"),
    ],
)
def test_wrong_shapes_are_named(obs, starts, message):
    policy = make_policy()
    with pytest.raises(ValueError, match=message):
        policy.act(obs, policy.initial_state(2), starts)


def test_a_policy_file_has_the_permissions_of_any_file(tmp_path):
    save_policy(tmp_path / "policy.safetensors", make_policy())
    (tmp_path / "plain").touch()
    assert (tmp_path / "policy.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_params_of_another_architecture_are_not_saved(tmp_path):
    policy = Policy(make_policy().config, make_policy(encoder=(9,)).params)
    with pytest.raises(
        ValueError, match=r"tensor params/trunk/encoder/\S+: got float32 \(9,\), expected float32 \(6,\)"
    ):
        save_policy(tmp_path / "p.safetensors", policy)
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    policy = make_policy()
    policy.params["trunk"]["memory"]["D"] = policy.params["trunk"]["memory"]["D"].at[0, 0].set(jnp.nan)
    with pytest.raises(ValueError, match="params/trunk/memory/D: holds a number that is not finite"):
        save_policy(tmp_path / "p.safetensors", policy)


def forge(path, change):
    """Rewrite a file's description and sign it again, as somebody hostile would."""
    path.write_bytes(forged(path.read_bytes(), change))


def forged(content, change):
    header, _ = _split(content)
    tensors = safetensors.numpy.load(content)
    document = json.loads(header["__metadata__"]["policy"])
    change(document, tensors)
    metadata = {"policy": json.dumps(document), "sha256": ""}
    metadata["sha256"] = _digest(*_split(safetensors.numpy.save(tensors, metadata)))
    return safetensors.numpy.save(tensors, metadata)


def damaged(content, rng):
    """A file that a disk, a network or a careless editor left."""
    start = int(rng.integers(len(content)))
    changed = bytearray(content)
    match rng.integers(4):
        case 0:
            return content[:start]
        case 1:
            for position in rng.integers(len(content), size=rng.integers(1, 9)).tolist():
                changed[position] ^= 1 << int(rng.integers(8))
        case 2:
            length = int(rng.integers(1, 64))
            changed[start : start + length] = rng.bytes(int(rng.integers(64)))
        case 3:
            changed += rng.bytes(int(rng.integers(1, 64)))
    return bytes(changed)


NUMBERS = [True, -1, 0, 2**63, 10**40, -1.5, 1e308, math.nan]
JUNK = [None, *NUMBERS, "", "x", "s5" * 999, [], [0], [[1]], {}, {"a": 1}]
PLACES = [
    *(("network", name) for name in ("obs_shape", "action", "memory", "memory_config", "encoder")),
    *(("network", name) for name in ("actor_torso", "critic_torso", "critic_memory", "activation")),
    *(("network", "memory_config", name) for name in ("d_model", "d_state", "n_layers")),
    *(("network", "action", name) for name in ("type", "n")),
    *(("observation_statistics", name) for name in ("epsilon", "clip", "samples")),
    ("network",),
    ("format",),
]
"""What decides which tensors a file must hold, or how they are used: no junk is right there."""
FINE = {"epsilon": {0, True, 1e308, 2**63, 10**40}, "clip": {True, 2**63, 10**40, 1e308}}
FINE["samples"] = FINE["clip"]


def hostile(rng):
    """A change to a description or to tensors that no signature makes right."""

    def change(document, tensors):
        name = str(rng.choice(sorted(tensors)))
        tensor = tensors[name]
        match rng.integers(8):
            case 0:
                tensors.pop(name)
            case 1:
                tensors[name + "x"] = tensors.pop(name)
            case 2:
                tensors[name] = tensor[None]
            case 3:
                tensors[name] = tensor.astype(np.float16)
            case 4:
                tensors[name] = np.full_like(tensor, rng.choice([np.nan, np.inf, -np.inf]))
            case _:
                *path, last = PLACES[rng.integers(len(PLACES))]
                place = document
                for step in path:
                    place = place[step]
                fine = [place[last], *FINE.get(last, ())]
                junk = [value for value in JUNK if not any(value == right for right in fine)]
                place[last] = junk[rng.integers(len(junk))]

    return change


@pytest.mark.slow
def test_of_ten_thousand_damaged_or_hostile_files_none_loads(tmp_path):
    path = tmp_path / "p.safetensors"
    save_policy(path, with_statistics(make_policy()))
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for case in range(10_000):
        bad = forged(content, hostile(rng)) if case % 20 == 0 else damaged(content, rng)
        if bad == content:
            continue
        path.write_bytes(bad)
        with pytest.raises(PolicyFileError) as caught:
            load_policy(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


HOSTILE = {
    "a huge state": lambda d, t: d["network"]["memory_config"].update(d_state=10**9),
    "a size beyond 64 bits": lambda d, t: d["network"]["memory_config"].update(d_model=10**40),
    "a billion layers": lambda d, t: d["network"]["memory_config"].update(n_layers=10**9),
    "a million dense layers": lambda d, t: d["network"].update(encoder=[1] * 10**6),
    "an unknown memory": lambda d, t: d["network"].update(memory="os.system"),
    "an unknown field": lambda d, t: d["network"].update(evil=1),
    "a missing field": lambda d, t: d["network"].pop("action"),
    "an unknown action space": lambda d, t: d["network"]["action"].update(type="Exec"),
    "no network": lambda d, t: d.update(network=None),
    "a list for the network": lambda d, t: d.update(network=[1, 2]),
    "NaN": lambda d, t: d["network"]["memory_config"].update(dt_min=float("nan")),
    "a wrong type": lambda d, t: d["network"]["memory_config"].update(d_state="64"),
    "a bool for a size": lambda d, t: d["network"]["memory_config"].update(n_layers=True),
    "another format": lambda d, t: d.update(format="s5-adapters policy 99"),
    "a wrong env_id": lambda d, t: d.update(env_id=7),
    "a tensor too many": lambda d, t: t.update({"params/extra": np.zeros(1, np.float32)}),
    "a tensor too few": lambda d, t: t.pop("params/trunk/memory/D"),
    "another dtype": lambda d, t: t.update({"params/trunk/memory/D": np.zeros((2, 8), np.float64)}),
    "another shape": lambda d, t: t.update({"params/trunk/memory/D": np.zeros((8, 2), np.float32)}),
    "an infinite weight": lambda d, t: t["params/trunk/memory/D"].fill(np.inf),
    "no sample": lambda d, t: d["observation_statistics"].update(samples=0.0),
    "a negative epsilon": lambda d, t: d["observation_statistics"].update(epsilon=-1.0),
    "statistics of another shape": lambda d, t: t.update({"observations/mean": np.zeros(3, np.float32)}),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_description_is_refused_even_when_signed(tmp_path, case):
    path = tmp_path / "p.safetensors"
    save_policy(path, with_statistics(make_policy()))
    forge(path, HOSTILE[case])
    with pytest.raises(PolicyFileError, match=re.escape(str(path))) as caught:
        load_policy(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\0" * 7, b"\xff" * 64, b"[" * 100_000, b"\x02\0\0\0\0\0\0\0{}"])
def test_what_is_no_safetensors_file_is_refused(tmp_path, content):
    path = tmp_path / "p.safetensors"
    path.write_bytes(content)
    with pytest.raises(PolicyFileError):
        load_policy(path)


def test_a_deeply_nested_header_is_refused(tmp_path):
    path = tmp_path / "p.safetensors"
    header = b'{"a":' * 200_000
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(PolicyFileError, match="not JSON"):
        load_policy(path)


def test_a_file_loads_in_a_process_without_the_frameworks(tmp_path):
    path = tmp_path / "p.safetensors"
    save_policy(path, make_policy())
    program = f"""
import sys
for name in ("torch", "gymnasium", "gymnax", "ray", "optax", "orbax"):
    sys.modules[name] = None
from s5_adapters import load_policy
import numpy as np
policy = load_policy({str(path)!r})
action, state = policy.act(np.zeros((2, 5), np.float32), policy.initial_state(2), np.ones(2, bool))
print(action.shape)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(2,)"
