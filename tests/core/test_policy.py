"""The actor-critic network: topologies, heads, images, and the memory contract carried through."""

from __future__ import annotations

import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5_adapters.core import ActorCritic, ActorCriticConfig, Box, Discrete, MultiDiscrete, distribution

TOPOLOGIES = ("shared", "shared_detached", "separate", "none")
LENGTH, BATCH, OBS = 10, 2, 5
TOLERANCE = {"rtol": 2e-5, "atol": 2e-5}
BASE: dict[str, Any] = {
    "obs_shape": (OBS,),
    "action": Discrete(3),
    "memory": "gru",
    "memory_config": {"d_model": 8},
    "encoder": (6,),
    "actor_torso": (7,),
    "critic_torso": (7,),
}
S5 = {"memory": "s5", "memory_config": {"d_model": 8, "d_state": 8, "n_layers": 2, "dt_min": 0.05}}
every_topology = pytest.mark.parametrize("topology", TOPOLOGIES)


def network(**changes: Any) -> ActorCritic:
    return ActorCritic(ActorCriticConfig(**{**BASE, **changes}))


@functools.cache
def params_of(net: ActorCritic) -> Any:
    return net.init(jax.random.key(0))


@functools.partial(jax.jit, static_argnums=0)
def run(net: ActorCritic, params: Any, state: Any, obs: Any, starts: Any) -> Any:
    return net.apply(params, state, obs, starts)


def observations(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def start_at(*steps: int, length: int = LENGTH) -> np.ndarray:
    starts = np.zeros((length, BATCH), bool)
    starts[list(steps)] = True
    return starts


def magnitude(tree: Any) -> float:
    return float(sum(np.abs(leaf).sum() for leaf in jax.tree.leaves(tree)))


# What each loss must train, and what it must leave alone.
FLOWS = {
    "shared": {"value": {"encoder", "memory", "critic"}, "policy": {"encoder", "memory", "actor"}},
    "shared_detached": {"value": {"critic"}, "policy": {"encoder", "memory", "actor"}},
    "separate": {"value": {"encoder", "critic_memory", "critic"}, "policy": {"encoder", "memory", "actor"}},
    "none": {"value": {"encoder", "critic"}, "policy": {"encoder", "memory", "actor"}},
}


@every_topology
def test_gradients_flow_where_the_topology_says(topology: str) -> None:
    net = network(critic_memory=topology)
    params, obs = params_of(net), observations(LENGTH, BATCH, OBS)

    @jax.jit
    def gradients(params: Any) -> Any:
        def loss(params: Any, which: int) -> Any:
            outputs = net.apply(params, net.initial_state(BATCH), obs, start_at(4))[1:]
            return jnp.sum(jnp.sin(outputs[which]))

        return [jax.grad(loss)(params, which) for which in (0, 1)]

    for name, gradient in zip(("policy", "value"), gradients(params), strict=True):
        trunk, heads = (
            {part for part, leaves in gradient[whole].items() if magnitude(leaves) > 0}
            for whole in ("trunk", "heads")
        )
        assert trunk == FLOWS[topology][name], name
        assert heads == FLOWS[topology][name] & {"actor", "critic"}, name


@every_topology
def test_the_value_remembers_unless_the_critic_has_no_memory(topology: str) -> None:
    net = network(critic_memory=topology)
    params, obs = params_of(net), observations(LENGTH, BATCH, OBS)
    other = obs.copy()
    other[0] += 1
    (_, logits, value), (_, other_logits, other_value) = (
        run(net, params, net.initial_state(BATCH), o, start_at()) for o in (obs, other)
    )
    assert np.abs(logits[1:] - other_logits[1:]).max() > 1e-6
    changed = np.abs(value[1:] - other_value[1:]).max()
    assert changed == 0 if topology == "none" else changed > 1e-6


@every_topology
@pytest.mark.parametrize("memory", [{}, S5], ids=["gru", "s5"])
def test_steps_equal_the_sequence(topology: str, memory: dict[str, Any]) -> None:
    net = network(critic_memory=topology, **memory)
    params, obs, starts = params_of(net), observations(LENGTH, BATCH, OBS), start_at(0, 6)
    starts[3, 1] = True
    final, inputs, value = run(net, params, net.initial_state(BATCH), obs, starts)
    assert inputs.shape == (LENGTH, BATCH, 3)
    assert value.shape == (LENGTH, BATCH)
    assert inputs.dtype == value.dtype == jnp.float32
    prepared, step = jax.jit(net.prepare)(params), jax.jit(net.step)
    state = net.initial_state(BATCH)
    for t in range(LENGTH):
        state, inputs_t, value_t = step(prepared, state, obs[t], starts[t])
        np.testing.assert_allclose(inputs_t, inputs[t], **TOLERANCE)
        np.testing.assert_allclose(value_t, value[t], **TOLERANCE)
    for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(final), strict=True):
        np.testing.assert_allclose(ours, theirs, **TOLERANCE)


@every_topology
def test_packed_episodes_equal_unpacked_ones(topology: str) -> None:
    net = network(critic_memory=topology)
    params, obs = params_of(net), observations(LENGTH, BATCH, OBS)
    _, *packed = run(net, params, net.initial_state(BATCH), obs, start_at(5))
    for steps in (slice(0, 5), slice(5, 10)):
        _, *alone = run(net, params, net.initial_state(BATCH), obs[steps], start_at(length=5))
        for ours, theirs in zip(packed, alone, strict=True):
            np.testing.assert_allclose(ours[steps], theirs, **TOLERANCE)


@every_topology
def test_state_shape_describes_the_state(topology: str) -> None:
    net = network(critic_memory=topology)
    state = net.initial_state(3)
    one = net.memory.state_shape
    assert net.state_shape == ((one, one) if topology == "separate" else one)
    assert [leaf.shape for leaf in jax.tree.leaves(state)] == [(3, 1, 8)] * (
        2 if topology == "separate" else 1
    )
    assert magnitude(state) == 0


def test_detached_equals_shared_but_for_the_gradient() -> None:
    shared, detached = network(), network(critic_memory="shared_detached")
    params, obs = params_of(shared), observations(LENGTH, BATCH, OBS)
    results = [run(net, params, net.initial_state(BATCH), obs, start_at(2)) for net in (shared, detached)]
    jax.tree.map(np.testing.assert_array_equal, *results)


@pytest.mark.parametrize(
    ("action", "width"),
    [(Discrete(4), 4), (MultiDiscrete((2, 3)), 5), (Box((-1.0, -1.0, 0.0), (1.0, 1.0, 9.0)), 6)],
)
def test_every_head_feeds_its_distribution(action: Any, width: int) -> None:
    net = network(action=action)
    params, obs = params_of(net), observations(LENGTH, BATCH, OBS)
    _, inputs, _ = run(net, params, net.initial_state(BATCH), obs, start_at())
    assert inputs.shape == (LENGTH, BATCH, width)
    dist = distribution(action, inputs)
    sample = dist.sample(jax.random.key(1))
    assert dist.log_prob(sample).shape == dist.entropy().shape == (LENGTH, BATCH)
    # A fresh actor prefers nothing: its last layer is scaled by 0.01.
    assert np.abs(inputs).max() < 0.1


def test_a_box_has_one_log_std_per_component_whatever_the_state() -> None:
    net = network(action=Box((-1.0, -1.0), (1.0, 1.0)))
    params = params_of(net)
    params = {**params, "heads": {**params["heads"], "log_std": jnp.array([0.5, -0.5])}}
    _, inputs, _ = run(net, params, net.initial_state(BATCH), observations(LENGTH, BATCH, OBS), start_at())
    np.testing.assert_array_equal(inputs[..., 2:], np.broadcast_to([0.5, -0.5], (LENGTH, BATCH, 2)))
    assert np.std(inputs[..., :2]) > 0


def test_images_go_through_the_nature_cnn() -> None:
    net = network(obs_shape=(36, 40, 2), cnn_features=9, encoder=())
    params = params_of(net)
    obs = np.random.default_rng(0).integers(0, 256, (3, BATCH, 36, 40, 2), np.uint8)
    _, *of_bytes = run(net, params, net.initial_state(BATCH), obs, start_at(length=3))
    _, *of_floats = run(
        net, params, net.initial_state(BATCH), (obs / 255).astype(np.float32), start_at(length=3)
    )
    for ours, theirs in zip(of_bytes, of_floats, strict=True):
        np.testing.assert_allclose(ours, theirs, **TOLERANCE)
    brighter = obs.copy()
    brighter[0] = 255 - brighter[0]
    _, _, value = run(net, params, net.initial_state(BATCH), brighter, start_at(length=3))
    assert np.abs(value[0] - of_bytes[1][0]).max() > 1e-6
    kernels = [leaf.shape for leaf in jax.tree.leaves(params["trunk"]["encoder"]) if leaf.ndim == 4]
    assert sorted(kernels) == sorted([(8, 8, 2, 32), (4, 4, 32, 64), (3, 3, 64, 64)])


def test_a_network_without_encoder_and_torsos() -> None:
    net = network(encoder=(), actor_torso=(), critic_torso=())
    _, inputs, value = run(
        net, params_of(net), net.initial_state(BATCH), observations(LENGTH, BATCH, OBS), start_at()
    )
    assert inputs.shape == (LENGTH, BATCH, 3)
    assert np.isfinite(value).all()


def test_parameters_follow_from_the_key() -> None:
    net = network()
    first, again, other = (net.init(jax.random.key(k)) for k in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    difference = jax.tree.map(lambda a, b: a - b, first, other)
    assert all(magnitude(difference[whole][part]) > 0 for whole in first for part in first[whole])
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(first))


def test_separate_memories_start_different() -> None:
    params = params_of(network(critic_memory="separate"))["trunk"]
    assert magnitude(jax.tree.map(lambda a, b: a - b, params["memory"], params["critic_memory"])) > 0


def test_equal_configurations_compile_once() -> None:
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def counted(net: ActorCritic, *arguments: Any) -> Any:
        traces.append(net)
        return net.apply(*arguments)

    config = {"d_model": 8, "n_layers": 1}
    for memory_config in (config, dict(reversed(config.items())), tuple(config.items())):
        net = network(memory_config=memory_config, encoder=[6], obs_shape=[OBS])
        state = net.initial_state(BATCH)
        counted(net, params_of(net), state, observations(LENGTH, BATCH, OBS), start_at())
    assert len(traces) == 1


def test_a_configuration_is_plain_data() -> None:
    config = ActorCriticConfig(**{**BASE, **S5})
    again = config.replace(memory_config=dict(json.loads(json.dumps(dict(config.memory_config)))))
    assert again == config
    assert hash(again) == hash(config)
    assert config.make_memory().n_layers == 2
    assert config.replace(activation="tanh") != config


@pytest.mark.parametrize("activation", ["tanh", "relu", "leaky_relu", "elu", "gelu"])
def test_the_encoder_is_what_it_says(activation: str) -> None:
    functions = {
        "tanh": np.tanh,
        "relu": lambda x: np.maximum(x, 0),
        "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
        "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
        "gelu": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    }
    net = network(
        memory="feedforward",
        activation=activation,
        memory_config={"d_model": 6},
        actor_torso=(4,),
        critic_torso=(),
    )
    params = jax.tree.map(lambda leaf: leaf + 0.1 * observations(*leaf.shape), params_of(net))
    obs = observations(LENGTH, BATCH, OBS, seed=2)
    _, inputs, value = run(net, params, (), obs, start_at())

    def dense(layer: Any, x: Any) -> Any:
        return x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)

    # Flax names the layers of one MLP module in the order they run.
    trunk, heads = params["trunk"], params["heads"]
    x = functions[activation](dense(trunk["encoder"]["MLP_0"]["Dense_0"], obs.astype(np.float64)))
    layer = {name: leaf[0] for name, leaf in trunk["memory"].items()}
    x = dense(layer, x)
    x = np.where(x > 0, x, 0.01 * x)
    hidden = functions[activation](dense(trunk["actor"]["Dense_0"], x))
    np.testing.assert_allclose(inputs, dense(heads["actor"], hidden), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(value, dense(heads["critic"], x)[..., 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"obs_shape": (3, 4)}, "obs_shape: got (3, 4), expected (features,) or (height, width, channels)"),
        ({"obs_shape": ()}, "obs_shape: got ()"),
        ({"obs_shape": (0,)}, "obs_shape[0]: got 0"),
        ({"obs_shape": 5}, "obs_shape: got 5"),
        ({"obs_shape": (35, 84, 3)}, "obs_shape: got (35, 84, 3), expected at least 36 pixels"),
        ({"action": 4}, "action: got 4, expected a Discrete"),
        ({"action": Discrete}, "action: got <class"),
        ({"memory": "s6"}, "memory: got 's6', expected one of s5"),
        ({"memory_config": {"d_modl": 8}}, "gru memory: got argument 'd_modl', expected some of d_model"),
        ({"encoder": (64, 0)}, "encoder[1]: got 0"),
        ({"encoder": 64}, "encoder: got 64"),
        ({"actor_torso": "64"}, "actor_torso: got '64'"),
        ({"critic_torso": (1.5,)}, "critic_torso[0]: got 1.5"),
        ({"activation": "leakyrelu"}, "activation: got 'leakyrelu', expected one of leaky_relu"),
        ({"critic_memory": "share"}, "critic_memory: got 'share', expected one of shared"),
        ({"cnn_features": 0}, "cnn_features: got 0"),
    ],
    ids=str,
)
def test_a_mistake_gets_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (what it says is compared below)
        ActorCriticConfig(**{**BASE, **change})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
