"""The RLModule: what it computes, what it compiles, what it refuses."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import jax
import numpy as np
import pytest
import torch
from gymnasium import spaces
from ray.rllib.core.columns import Columns

from s5_adapters.core import ActorCritic, distribution
from s5_adapters.rllib import S5RLModule
from s5_adapters.rllib._rows import MinibatchRows
from tests.marks import slow

WITHOUT_D_STATE = {"d_model": 8, "encoder": [8], "actor_torso": [8], "critic_torso": [8], "max_seq_len": 6}
SMALL = WITHOUT_D_STATE | {"d_state": 8}
GATED = ("gru", "mingru")
VECTOR = spaces.Box(-1.0, 1.0, (3,))
CRITIC_MEMORIES = ("shared", "shared_detached", "separate", "none")


def make(
    obs: spaces.Space = VECTOR, action: spaces.Space | None = None, seed: int = 0, **model_config: Any
) -> S5RLModule:
    torch.manual_seed(seed)
    return S5RLModule(
        observation_space=obs,
        action_space=spaces.Discrete(4) if action is None else action,
        inference_only=False,
        model_config=(WITHOUT_D_STATE if model_config.get("memory") in GATED else SMALL) | model_config,
    )


def observations(module: S5RLModule, rows: int, steps: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    shape = (rows, steps, *module.observation_space.shape)
    if module.observation_space.dtype == np.uint8:
        return torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


def first_state(module: S5RLModule, rows: int) -> dict[str, torch.Tensor]:
    state = module.get_initial_state()
    return {name: torch.from_numpy(np.repeat(leaf[None], rows, axis=0)) for name, leaf in state.items()}


def batch_of(module: S5RLModule, obs: torch.Tensor, state: Any = None) -> dict[str, Any]:
    return {Columns.OBS: obs, Columns.STATE_IN: state or first_state(module, len(obs))}


def act_along(module: S5RLModule, obs: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    state, outputs = first_state(module, len(obs)), []
    for t in range(obs.shape[1]):
        step = module.forward_exploration(batch_of(module, obs[:, t : t + 1], state))
        state = step[Columns.STATE_OUT]
        outputs.append(step[Columns.ACTION_DIST_INPUTS])
    return torch.cat(outputs, dim=1), state


@pytest.mark.parametrize(
    ("memory", "critic_memory"),
    [
        *(("s5", critic) for critic in CRITIC_MEMORIES),
        ("mamba", "separate"),
        *slow(("gru", "separate"), ("lru", "shared"), ("mingru", "shared")),
    ],
)
def test_acting_step_by_step_is_training_on_the_row_is_the_core(memory: str, critic_memory: str) -> None:
    module = make(memory=memory, critic_memory=critic_memory)
    obs = observations(module, 4, 6)
    acted, _ = act_along(module, obs)
    trained = module.forward_train(batch_of(module, obs))
    net = ActorCritic(module.actor_critic_config)
    _, inputs, values = jax.jit(net.apply)(
        module.get_params(), net.initial_state(4), obs.numpy().swapaxes(0, 1), np.zeros((6, 4), bool)
    )
    inputs, values = np.array(inputs).swapaxes(0, 1), np.array(values).T
    np.testing.assert_allclose(acted, inputs, atol=2e-6)
    np.testing.assert_allclose(trained[Columns.ACTION_DIST_INPUTS].detach(), inputs, atol=2e-6)
    np.testing.assert_allclose(trained[Columns.EMBEDDINGS].detach(), values, atol=2e-6)
    np.testing.assert_allclose(module.compute_values(batch_of(module, obs)), values, atol=2e-6)


def test_many_steps_in_one_call_are_the_steps_one_by_one() -> None:
    module = make()
    obs = observations(module, 4, 6)
    acted, state = act_along(module, obs)
    whole = module.forward_inference(batch_of(module, obs))
    torch.testing.assert_close(whole[Columns.ACTION_DIST_INPUTS], acted, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(whole[Columns.STATE_OUT], state, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("critic_memory", CRITIC_MEMORIES)
def test_state_shapes(critic_memory: str) -> None:
    module = make(n_layers=2, critic_memory=critic_memory)
    # Two parts, two layers, four complex lanes; twice where the critic remembers for itself.
    size = 2 * 2 * 4 * (2 if critic_memory == "separate" else 1)
    state = module.get_initial_state()
    assert {name: (leaf.shape, leaf.dtype) for name, leaf in state.items()} == {
        "memory": ((size,), np.float32)
    }
    assert module.is_stateful()
    if critic_memory == "separate":
        step = module.forward_exploration(batch_of(module, observations(module, 2, 1)))
        assert step[Columns.STATE_OUT]["memory"].shape == (2, size)
        assert step[Columns.ACTION_DIST_INPUTS].shape == (2, 1, 4)


def test_a_memory_without_state_is_an_ordinary_module_without_rows() -> None:
    given = {"memory": "feedforward", "d_model": 8, "encoder": [8]}
    module = S5RLModule(
        observation_space=VECTOR, action_space=spaces.Discrete(4), inference_only=False, model_config=given
    )
    assert module.get_initial_state() == {}
    assert not module.is_stateful()
    obs = torch.randn(7, 3)
    acted = module.forward_exploration({Columns.OBS: obs})
    trained = module.forward_train({Columns.OBS: obs})
    assert set(acted) == {Columns.ACTION_DIST_INPUTS}
    assert trained[Columns.EMBEDDINGS].shape == (7,)
    assert module.compute_values({Columns.OBS: obs}).shape == (7,)
    torch.testing.assert_close(acted[Columns.ACTION_DIST_INPUTS], trained[Columns.ACTION_DIST_INPUTS])


@pytest.mark.parametrize(
    ("action", "width", "samples"),
    [
        (spaces.Discrete(5), 5, (2, 3)),
        (spaces.MultiDiscrete([2, 3, 4]), 9, (2, 3, 3)),
        (spaces.MultiBinary(3), 6, (2, 3, 3)),
        (spaces.Box(-2.0, 3.0, (2,)), 4, (2, 3, 2)),
    ],
)
def test_distributions_are_the_cores(action: spaces.Space, width: int, samples: tuple[int, ...]) -> None:
    module = make(action=action, actions_in_env_units=True)
    obs = observations(module, 2, 3)
    inputs = module.forward_train(batch_of(module, obs))[Columns.ACTION_DIST_INPUTS].detach()
    inputs = inputs + torch.randn_like(inputs)  # away from the initial near-uniform policy
    assert inputs.shape == (2, 3, width)
    ours = distribution(module.actor_critic_config.action, inputs.numpy())
    for kind in ("inference", "exploration", "train"):
        theirs = getattr(module, f"get_{kind}_action_dist_cls")().from_logits(inputs)
        actions = theirs.sample()
        assert tuple(actions.shape) == samples
        np.testing.assert_allclose(theirs.logp(actions), ours.log_prob(actions.numpy()), atol=1e-5)
        np.testing.assert_allclose(theirs.entropy(), ours.entropy(), atol=1e-5)
        np.testing.assert_allclose(theirs.to_deterministic().sample(), ours.mode(), atol=1e-6)


def test_images_channels_last_with_bytes_as_bytes() -> None:
    module = make(obs=spaces.Box(0, 255, (36, 40, 3), np.uint8), cnn_features=16)
    obs = observations(module, 2, 3)
    acted, _ = act_along(module, obs)
    trained = module.forward_train(batch_of(module, obs))[Columns.ACTION_DIST_INPUTS]
    torch.testing.assert_close(acted, trained.detach(), atol=1e-5, rtol=1e-4)
    net = ActorCritic(module.actor_critic_config)
    _, inputs, _ = net.apply(
        module.get_params(), net.initial_state(2), obs.numpy().swapaxes(0, 1), np.zeros((3, 2), bool)
    )
    np.testing.assert_allclose(acted, np.array(inputs).swapaxes(0, 1), atol=1e-5)


@pytest.mark.parametrize("critic_memory", ["shared", "separate"])
def test_padding_reaches_neither_outputs_nor_gradients(critic_memory: str) -> None:
    module = make(critic_memory=critic_memory)
    obs = observations(module, 4, 4)

    def run(obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        outputs = module.forward_train(batch_of(module, obs))
        logits, values = outputs[Columns.ACTION_DIST_INPUTS][:4, :4], outputs[Columns.EMBEDDINGS][:4, :4]
        module.zero_grad()
        (logits.square().sum() + values.square().sum()).backward()
        return logits.detach(), values.detach(), [p.grad.clone() for p in module.parameters()]

    steps = torch.cat([obs, torch.full((4, 2, 3), 7.0)], dim=1)
    rows = torch.cat([steps, torch.full((4, 6, 3), -3.0)])
    expected = run(obs)
    for padded in (run(steps), run(rows)):
        torch.testing.assert_close(padded, expected, atol=1e-5, rtol=1e-4)


def test_row_counts_that_keep_changing_compile_a_bounded_number_of_programs() -> None:
    module = make(n_layers=1, d_model=4, d_state=4)
    compiled: list[str] = []

    def listen(event: str, _: float, **__: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for rows in [9, 10, 12, 11, 7, 6, 9, 13, 16, 5, 4]:
            outputs = module.forward_train(batch_of(module, observations(module, rows, 6)))
            sum(out.sum() for out in outputs.values()).backward()
        trained = len(compiled)
        for rows in [60, 61, 40, 33, 17, 50, 64]:
            module.compute_values(batch_of(module, observations(module, rows, 6)))
        valued = len(compiled) - trained
        for _ in range(3):
            for rows in (5, 4, 3, 2):
                module.forward_exploration(batch_of(module, observations(module, rows, 1)))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert trained == 2  # forward and backward, of 16 rows
    assert valued == 1  # of 64 rows
    assert len(compiled) - trained - valued == 2  # the parameters prepared, a step of 5 rows


def test_x64_changes_neither_types_nor_values() -> None:
    module = make(n_layers=1, d_model=4, d_state=4)
    batch, step = (batch_of(module, observations(module, 4, steps)) for steps in (6, 1))

    def run() -> list[torch.Tensor]:
        module.network.forget()
        module.zero_grad()
        trained = module.forward_train(batch)
        sum(out.square().sum() for out in trained.values()).backward()
        acted = module.forward_exploration(step)
        outputs = [*trained.values(), acted[Columns.ACTION_DIST_INPUTS], module.compute_values(batch)]
        outputs += [*acted[Columns.STATE_OUT].values(), *[p.grad for p in module.parameters()]]
        return [out.detach().clone() for out in outputs]

    narrow = run()
    with jax.enable_x64(True):
        wide = run()
    assert {leaf.dtype for leaf in wide} == {torch.float32}
    torch.testing.assert_close(wide, narrow, atol=1e-5, rtol=1e-4)


def test_a_minibatch_size_that_stays_wasteful_gives_way_to_a_tight_one() -> None:
    rows = MinibatchRows(patience=3)
    assert [rows.fit(n) for n in (9, 16, 4, 4, 12, 5, 5, 4)] == [16] * 8
    assert rows.fit(5) == 8
    assert [rows.fit(n) for n in (5, 8, 9, 3)] == [8, 8, 16, 8]


def test_sizes_of_minibatches_are_closer_to_each_other_where_rows_are_many() -> None:
    fitted = [MinibatchRows().fit(n) for n in (1, 2, 3, 9, 12, 17, 20, 24, 25, 33, 48, 49, 97)]
    assert fitted == [1, 2, 4, 16, 16, 24, 24, 24, 32, 48, 48, 64, 128]


def test_acting_follows_every_change_of_the_parameters() -> None:
    module, other = make(seed=0), make(seed=1)
    batch = batch_of(module, observations(module, 2, 1))

    def logits(of: S5RLModule) -> torch.Tensor:
        return of.forward_exploration(batch)[Columns.ACTION_DIST_INPUTS].clone()

    before, target = logits(module), logits(other)
    assert not torch.equal(before, target)
    module.set_state(other.get_state())
    assert torch.equal(logits(module), target)
    module.set_params(make(seed=0).get_params())
    assert torch.equal(logits(module), before)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    outputs = module.forward_train(batch)
    sum(out.square().sum() for out in outputs.values()).backward()
    optimizer.step()
    after = logits(module)
    assert not torch.allclose(after, before, atol=1e-3)
    assert torch.equal(logits(module), after)


def test_acting_prepares_the_parameters_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make()
    batch = batch_of(module, observations(module, 2, 1))
    module.forward_exploration(batch)

    def refuse(*_: Any) -> None:
        raise AssertionError("prepared again")

    monkeypatch.setattr(module.network, "forget", refuse)
    held = module.network.prepared(module._programs.prepare)
    module.forward_exploration(batch)
    module.forward_inference(batch)
    assert module.network.prepared(module._programs.prepare) is held


def test_outputs_are_the_callers_own() -> None:
    module = make()
    batch = batch_of(module, observations(module, 2, 1))
    first = module.forward_exploration(batch)
    kept = first[Columns.STATE_OUT]["memory"].clone()
    first[Columns.ACTION_DIST_INPUTS].zero_()
    second = module.forward_exploration(batch)
    assert torch.equal(first[Columns.STATE_OUT]["memory"], kept)
    assert second[Columns.ACTION_DIST_INPUTS].abs().sum() > 0


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_pickles_and_copies_after_use(clone: Any) -> None:
    module = make(action=spaces.MultiDiscrete([2, 3]))
    batch = batch_of(module, observations(module, 2, 1))
    expected = module.forward_exploration(batch)[Columns.ACTION_DIST_INPUTS]
    twin = clone(module)
    assert torch.equal(twin.forward_exploration(batch)[Columns.ACTION_DIST_INPUTS], expected)
    module.set_state(make(seed=3, action=spaces.MultiDiscrete([2, 3])).get_state())
    assert torch.equal(twin.forward_exploration(batch)[Columns.ACTION_DIST_INPUTS], expected)


def test_torchs_seed_decides_the_initial_parameters() -> None:
    same, again, other = make(seed=5), make(seed=5), make(seed=6)
    leaves = [jax.tree.leaves(module.get_params()) for module in (same, again, other)]
    assert all(np.array_equal(a, b) for a, b in zip(leaves[0], leaves[1], strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(leaves[0], leaves[2], strict=True))


def test_target_network_of_appo_stays_until_it_is_updated() -> None:
    module = make()
    module.make_target_networks()
    batch = batch_of(module, observations(module, 2, 6))
    before = module.forward_target(batch)["target_network_action_dist_inputs"].clone()
    with torch.no_grad():
        for parameter in module.network.parameters():
            parameter.add_(0.1)
    assert torch.equal(module.forward_target(batch)["target_network_action_dist_inputs"], before)
    assert not torch.allclose(module.forward_train(batch)[Columns.ACTION_DIST_INPUTS], before)
    assert not any(parameter.requires_grad for parameter in module.old_network.parameters())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"memry": "s5"}, r"model_config: got 'memry', expected some of memory,"),
        ({"memory": "s6"}, r"memory: got 's6', expected one of "),
        ({"d_modl": 3}, r"model_config: got 'd_modl', expected some of d_model, "),
        ({"d_model": 0}, r"d_model: got 0, expected an integer >= 1"),
        ({"use_lstm": True}, r"model_config: got 'use_lstm'"),
        ({"critic_memory": "share"}, r"critic_memory: got 'share', expected one of shared,"),
        ({"max_seq_len": None}, r"got no 'max_seq_len', which the s5 memory needs"),
        ({"max_seq_len": 0}, r"model_config\['max_seq_len'\]: got 0, expected an integer >= 1"),
        ({"memory_config": {"d_model": 4}}, r"model_config: got 'd_model' twice"),
        ({"memory_config": [1]}, r"model_config\['memory_config'\]: got \[1\], expected a mapping"),
        ({"encoder": "wide"}, r"encoder: got 'wide', expected a list"),
    ],
)
def test_wrong_model_configs_are_refused_in_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make(**given)
    assert "\n" not in str(caught.value)


def test_memory_settings_may_stand_in_memory_config() -> None:
    given = {k: v for k, v in SMALL.items() if k not in ("d_model", "d_state")}
    nested = S5RLModule(
        observation_space=VECTOR,
        action_space=spaces.Discrete(4),
        inference_only=False,
        model_config=given | {"memory_config": {"d_model": 8, "d_state": 8}, "vf_share_layers": False},
    )
    assert nested.actor_critic_config == make().actor_critic_config


@pytest.mark.parametrize(
    ("obs", "action", "message"),
    [
        (spaces.Discrete(3), spaces.Discrete(2), r"observation space: got Discrete\(3\)"),
        (spaces.Box(0, 1, (4, 4)), spaces.Discrete(2), r"observation space: got Box.*FlattenObservations"),
        (spaces.Box(0, 1, (9, 9, 3)), spaces.Discrete(2), r"at least 36 pixels a side"),
        (VECTOR, spaces.Discrete(2, start=1), r"action space: got Discrete\(2, start=1\)"),
        (VECTOR, spaces.MultiBinary([2, 3]), r"action space: got MultiBinary\(\(2, 3\)\)"),
        (VECTOR, spaces.Box(0, 1, (2, 2)), r"action space: got Box"),
        (VECTOR, spaces.MultiDiscrete([[2, 3]]), r"action space: got MultiDiscrete"),
    ],
)
def test_spaces_that_do_not_fit_are_named(obs: spaces.Space, action: spaces.Space, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(obs=obs, action=action)


def test_batches_that_lack_something_are_named() -> None:
    module = make()
    obs = observations(module, 2, 1)
    with pytest.raises(ValueError, match="the batch has no 'state_in'"):
        module.forward_exploration({Columns.OBS: obs})
    with pytest.raises(ValueError, match=r"minibatch_size is smaller than max_seq_len"):
        module.forward_train({})
    with pytest.raises(ValueError, match=r"obs: got shape \(2, 3\), expected \(rows, steps, 3\)"):
        module.forward_exploration(batch_of(module, obs[:, 0]))
