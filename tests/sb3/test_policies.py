"""S5Policy within SB3: training sees what the rollout recorded, gradients are JAX's, files come back."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from s5_adapters.core.network.config import CRITIC_MEMORIES
from s5_adapters.sb3 import MultiInputS5Policy, S5Policy, S5RecurrentPPO
from tests.compilation import quick_environment
from tests.marks import slow

SMALL: dict[str, Any] = {"d_model": 8, "n_layers": 2, "net_arch": [6]}


class ShortEpisodes(gym.Env):
    """Random observations; episodes of 3 to 9 steps, some cut off by a time limit."""

    def __init__(self, action_space: spaces.Space | None = None) -> None:
        self.observation_space = spaces.Box(-1, 1, (3,))
        self.action_space = action_space or spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(3, 10))
        return self._observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.left -= 1
        over, limit = self.left == 0, bool(self.np_random.random() < 0.3)
        return self._observe(), float(np.sum(action)), over and not limit, over and limit, {}

    def _observe(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)


def model(
    algorithm: type[RecurrentPPO] = S5RecurrentPPO, action_space: spaces.Space | None = None, **kwargs: Any
):
    env = make_vec_env(lambda: ShortEpisodes(action_space), n_envs=3, seed=0)
    settings = {"n_steps": 20, "batch_size": 20, "n_epochs": 1, "seed": 1, "policy_kwargs": SMALL, **kwargs}
    return algorithm("S5Policy", env, **settings)


def rollout(algorithm: RecurrentPPO) -> Any:
    """Collect one more rollout, left in the buffer."""

    class Nothing(BaseCallback):
        def _on_step(self) -> bool:
            return True

    _, callback = algorithm._setup_learn(10**6, Nothing(), reset_num_timesteps=False)
    algorithm.collect_rollouts(algorithm.env, callback, algorithm.rollout_buffer, algorithm.n_steps)
    return algorithm.rollout_buffer


def actions_of(batch: Any, space: spaces.Space) -> th.Tensor:
    return batch.actions.long().flatten() if isinstance(space, spaces.Discrete) else batch.actions


@pytest.mark.parametrize(
    ("algorithm", "critic_memory"),
    [
        *[(S5RecurrentPPO, name) for name in CRITIC_MEMORIES],
        (RecurrentPPO, "shared"),
        (RecurrentPPO, "separate"),
    ],
)
def test_evaluate_actions_reproduces_the_rollout(algorithm: type[RecurrentPPO], critic_memory: str) -> None:
    ppo = model(algorithm, policy_kwargs={**SMALL, "critic_memory": critic_memory})
    ppo.learn(60)  # parameters have moved, states are not zero
    buffer = rollout(ppo)
    assert buffer.episode_starts[1:].sum() >= 3
    seen = 0
    with th.no_grad():
        for batch in buffer.get(20):
            values, log_prob, _ = ppo.policy.evaluate_actions(
                batch.observations,
                actions_of(batch, ppo.action_space),
                batch.lstm_states,
                batch.episode_starts,
            )
            mask = batch.mask > 0.5
            seen += int(mask.sum())
            th.testing.assert_close(values.flatten()[mask], batch.old_values[mask], rtol=0, atol=1e-5)
            th.testing.assert_close(log_prob[mask], batch.old_log_prob[mask], rtol=0, atol=1e-5)
    assert seen == 60


@pytest.mark.parametrize(
    "action_space",
    [
        spaces.Box(-2, 2, (2,)),
        spaces.Box(-1, 1, (2, 2)),
        spaces.MultiDiscrete([2, 3, 4]),
        spaces.MultiBinary(3),
    ],
    ids=["box", "matrix", "multidiscrete", "multibinary"],
)
def test_other_action_spaces_reproduce_it_too(action_space: spaces.Space) -> None:
    ppo = model(action_space=action_space)
    ppo.learn(60)
    for batch in rollout(ppo).get(20):
        values, log_prob, entropy = ppo.policy.evaluate_actions(
            batch.observations, batch.actions, batch.lstm_states, batch.episode_starts
        )
        assert entropy.shape == log_prob.shape
        mask = batch.mask > 0.5
        th.testing.assert_close(log_prob[mask], batch.old_log_prob[mask], rtol=0, atol=1e-5)
        th.testing.assert_close(values.flatten()[mask], batch.old_values[mask], rtol=0, atol=1e-5)


@pytest.mark.parametrize("critic_memory", CRITIC_MEMORIES)
def test_gradients_are_those_of_jax_grad_of_the_same_loss(critic_memory: str) -> None:
    ppo = model(policy_kwargs={**SMALL, "critic_memory": critic_memory, "encoder": (5,)})
    policy: S5Policy = ppo.policy
    batch = next(iter(rollout(ppo).get(20)))
    actions = actions_of(batch, ppo.action_space)
    values, log_prob, entropy = policy.evaluate_actions(
        batch.observations, actions, batch.lstm_states, batch.episode_starts
    )
    mask = batch.mask
    total = mask.sum()
    target = batch.returns + 0.1
    loss = (
        mask * (0.5 * (values.flatten() - target) ** 2 - log_prob * target - 0.01 * entropy)
    ).sum() / total
    loss.backward()

    numpy = lambda tensor: jnp.asarray(tensor.detach().numpy())  # noqa: E731
    heads = {name: numpy(p) for name, p in policy.named_parameters() if name.split(".")[0].endswith("_net")}
    states = jax.tree.map(numpy, tuple(map(tuple, batch.lstm_states)))

    def pure(params: Any, heads: dict[str, jax.Array]) -> jax.Array:
        latent_pi, latent_vf, _, _ = policy._trunk.sequence(
            params, *states, (numpy(batch.observations),), numpy(batch.episode_starts)
        )
        logits = latent_pi @ heads["action_net.weight"].T + heads["action_net.bias"]
        values = (latent_vf @ heads["value_net.weight"].T + heads["value_net.bias"])[:, 0]
        log_probs = jax.nn.log_softmax(logits)
        chosen = jnp.take_along_axis(log_probs, numpy(actions)[:, None].astype(int), 1)[:, 0]
        entropy = -(jnp.exp(log_probs) * log_probs).sum(-1)
        target = numpy(batch.returns) + 0.1
        rows = 0.5 * (values - target) ** 2 - chosen * target - 0.01 * entropy
        return (numpy(mask) * rows).sum() / float(total)

    expected, expected_heads = jax.jit(jax.grad(pure, argnums=(0, 1)))(policy.trunk.snapshot(), heads)
    mine = jax.tree.map(lambda p: p.grad.numpy(), policy.trunk.tree())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), mine, expected)
    for name, gradient in expected_heads.items():
        np.testing.assert_allclose(policy.get_parameter(name).grad, gradient, rtol=1e-4, atol=1e-5)


def test_gradients_reach_a_features_extractor_before_the_trunk() -> None:
    space = spaces.Dict({"a": spaces.Box(-1, 1, (3,)), "image": spaces.Box(0, 255, (3, 36, 36), np.uint8)})
    policy = MultiInputS5Policy(space, spaces.Discrete(2), lambda _: 1e-3, **SMALL)
    obs = {"a": th.randn(6, 3), "image": th.randint(0, 255, (6, 3, 36, 36), dtype=th.uint8)}
    layers, _, width = policy.lstm_hidden_state_shape
    states = (th.zeros(layers, 2, width), th.zeros(layers, 2, width))
    values, log_prob, _ = policy.evaluate_actions(obs, th.zeros(6), RNNStates(states, states), th.zeros(6))
    (values.sum() + log_prob.sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.features_extractor.parameters())


@pytest.mark.parametrize("critic_memory", ["shared_detached", "none"])
def test_the_critics_gradient_stops_where_the_topology_says(critic_memory: str) -> None:
    policy = S5Policy(
        spaces.Box(-1, 1, (3,)), spaces.Discrete(2), lambda _: 1e-3, critic_memory=critic_memory, **SMALL
    )
    layers, _, width = policy.lstm_hidden_state_shape
    states = (th.zeros(layers, 2, width), th.zeros(layers, 2, width))
    values, _, _ = policy.evaluate_actions(
        th.randn(8, 3), th.zeros(8), RNNStates(states, states), th.zeros(8)
    )
    values.sum().backward()
    tree = policy.trunk.tree()
    assert all(float(leaf.grad.abs().sum()) == 0 for leaf in jax.tree.leaves(tree["memory"]))
    assert all(float(leaf.grad.abs().sum()) > 0 for leaf in jax.tree.leaves(tree["critic"]))


@pytest.mark.parametrize("algorithm", [RecurrentPPO, S5RecurrentPPO])
@pytest.mark.parametrize("memory", ["feedforward", "mamba", *slow("gru", "lru", "mingru")])
def test_any_memory_of_the_registry_trains(memory: str, algorithm: type[RecurrentPPO]) -> None:
    ppo = model(algorithm, policy_kwargs={"memory": memory, "d_model": 8, "n_layers": 1, "net_arch": [4]})
    before = ppo.policy.trunk.snapshot()
    ppo.learn(60)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, ppo.policy.trunk.snapshot())
    assert all(change > 0 for change in jax.tree.leaves(moved))


def test_an_activation_the_core_does_not_know_runs_in_torch() -> None:
    ppo = model(policy_kwargs={**SMALL, "activation_fn": th.nn.SiLU})
    assert [type(layer) for layer in ppo.policy.mlp_extractor.policy_net] == [th.nn.Linear, th.nn.SiLU]
    ppo.learn(60)
    known = model(policy_kwargs={**SMALL, "activation_fn": th.nn.ELU})
    assert len(known.policy.mlp_extractor.policy_net) == 0


def test_net_arch_sets_each_torso() -> None:
    ppo = model(policy_kwargs={**SMALL, "net_arch": {"pi": [], "vf": [5, 4]}})
    assert ppo.policy.action_net.in_features == 8
    assert ppo.policy.value_net.in_features == 4
    assert model(policy_kwargs={"d_model": 8, "n_layers": 1}).policy.action_net.in_features == 64


def test_a_seed_fixes_the_parameters() -> None:
    first, second, other = (model(seed=seed).policy.trunk.snapshot() for seed in (3, 3, 4))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True))


def test_acting_follows_the_parameters_after_every_update() -> None:
    ppo = model()
    obs, starts = ppo.env.reset(), np.ones(3, bool)
    for _ in range(3):
        ppo.learn(60)
        with th.no_grad():
            tensor = th.as_tensor(obs)
            zeros = tuple(th.zeros(2, 3, 4) for _ in range(2))
            flags = th.as_tensor(starts, dtype=th.float32)
            acted = ppo.policy.get_distribution(tensor, zeros, flags)[0].distribution.logits
            latent = ppo.policy._sequence((tensor,), zeros, zeros, flags)[0]
            trained = ppo.policy._get_action_dist_from_latent(latent).distribution.logits
        th.testing.assert_close(acted, trained, rtol=0, atol=1e-5)


def test_predict_carries_and_resets_its_state() -> None:
    ppo = model()
    rng = np.random.default_rng(0)
    history = rng.uniform(-1, 1, (6, 3, 3)).astype(np.float32)
    state, states = None, []
    for t, obs in enumerate(history):
        _, state = ppo.predict(obs, state=state, episode_start=np.full(3, t == 0), deterministic=True)
        states.append(state)
    assert state[0].shape == state[1].shape == (2, 3, 4)
    replayed = ppo.predict(history[5], state=states[4], episode_start=np.ones(3, bool), deterministic=True)[1]
    fresh = ppo.predict(history[5], state=None, episode_start=None, deterministic=True)[1]
    np.testing.assert_allclose(replayed[0], fresh[0], atol=1e-6)
    assert np.abs(states[5][0] - fresh[0]).max() > 1e-4
    single = ppo.predict(history[0][1], episode_start=np.ones(1, bool), deterministic=True)
    assert np.shape(single[0]) == ()
    np.testing.assert_allclose(single[1][0][:, 0], states[0][0][:, 1], atol=1e-6)


def test_a_state_of_another_shape_is_told() -> None:
    wrong = (np.zeros((1, 3, 8)), np.zeros((1, 3, 8)))
    with pytest.raises(ValueError, match=r"state has shape \(1, 3, 8\), expected \(2, n, 4\)"):
        model().predict(np.zeros((3, 3), np.float32), state=wrong)


def test_copies_and_files_act_alike(tmp_path: Path) -> None:
    ppo = model().learn(60)
    obs = ppo.env.reset()
    expected = ppo.predict(obs, deterministic=True)[1]
    ppo.save(tmp_path / "model")
    ppo.policy.save(tmp_path / "policy")
    others = [
        S5RecurrentPPO.load(tmp_path / "model"),
        RecurrentPPO.load(tmp_path / "model"),
        S5Policy.load(tmp_path / "policy"),
        copy.deepcopy(ppo.policy),
    ]
    for other in others:
        np.testing.assert_array_equal(other.predict(obs, deterministic=True)[1][0], expected[0])
    resumed = S5RecurrentPPO.load(tmp_path / "model", env=ppo.env)
    assert resumed.rollout_buffer.segment_length == ppo.rollout_buffer.segment_length
    resumed.learn(60, reset_num_timesteps=False)
    assert resumed.num_timesteps == 120


def test_a_saved_model_loads_in_a_process_that_never_imported_us(tmp_path: Path) -> None:
    ppo = model().learn(60)
    ppo.save(tmp_path / "model")
    obs = np.linspace(-1, 1, 9, dtype=np.float32).reshape(3, 3)
    np.save(tmp_path / "expected.npy", ppo.predict(obs, deterministic=True)[1][0])
    code = (
        "import sys, numpy as np, torch; torch.set_num_threads(1); from sb3_contrib import RecurrentPPO\n"
        "model = RecurrentPPO.load(sys.argv[1] + '/model')\n"
        "obs = np.linspace(-1, 1, 9, dtype=np.float32).reshape(3, 3)\n"
        "state = model.predict(obs, deterministic=True)[1][0]\n"
        "np.testing.assert_array_equal(state, np.load(sys.argv[1] + '/expected.npy'))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=quick_environment())


def test_a_gpu_without_jax_for_it_is_told_when_the_policy_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    from s5_adapters.torch_bridge import arrays

    monkeypatch.setattr(arrays, "_cuda_devices", lambda: 0)
    with pytest.raises(RuntimeError, match=r"pip install 'jax\[cuda12\]'.*device='cpu'"):
        arrays.check_device(th.device("cuda", 0), "parameter 'memory/B'")


class TestCompilation:
    """Counts every program XLA compiles."""

    @pytest.fixture
    def compiled(self) -> list[str]:
        names: list[str] = []

        def listen(event: str, _: float, **details: Any) -> None:
            if event == "/jax/core/compile/backend_compile_duration":
                names.append(str(details.get("fun_name")))

        jax.monitoring.register_event_duration_secs_listener(listen)
        yield names
        jax.monitoring.unregister_event_duration_listener(listen)

    def test_a_whole_run_on_segments_compiles_three_programs(self, compiled: list[str]) -> None:
        ppo = model(n_steps=21, batch_size=16, policy_kwargs={**SMALL, "d_model": 9, "d_state": 10})
        compiled.clear()
        ppo.learn(21 * 3 * 4)
        assert len(compiled) <= 3, compiled

    def test_the_stock_buffers_changing_shapes_stay_within_twenty(self, compiled: list[str]) -> None:
        ppo = model(
            RecurrentPPO, n_steps=40, batch_size=100, policy_kwargs={**SMALL, "d_model": 7, "d_state": 8}
        )
        compiled.clear()
        ppo.learn(40 * 3 * 6)
        shapes = ppo.policy._buckets.shapes
        assert 4 <= len(compiled) <= 20, (compiled, shapes)
        before = len(compiled)
        ppo.learn(40 * 3 * 2)
        assert len(compiled) - before <= 4


class Recorded(ShortEpisodes):
    """Keeps the actions that it is given."""

    def __init__(self, action_space: spaces.Space) -> None:
        super().__init__(action_space)
        self.given: list[np.ndarray] = []

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.given.append(action)
        return super().step(action)


@pytest.mark.parametrize("shape", [(2,), (1, 2)])
@pytest.mark.parametrize("algorithm", [S5RecurrentPPO, RecurrentPPO])
def test_squashed_actions_are_played_in_the_environments_units_as_predict_returns_them(
    algorithm: type[RecurrentPPO], shape: tuple[int, ...]
) -> None:
    low, high = np.array([-2, 0.1], np.float32), np.array([3, 0.4], np.float32)
    env = Recorded(spaces.Box(low.reshape(shape), high.reshape(shape)))
    squashing = {**SMALL, "squash_output": True, "log_std_init": 1.0}
    settings: dict[str, Any] = {"n_steps": 40, "batch_size": 40, "n_epochs": 1, "seed": 1}
    model = algorithm("S5Policy", env, use_sde=True, policy_kwargs=squashing, **settings)
    recorded = rollout(model)
    given = np.reshape(env.given, (-1, 2))
    assert (given >= low).all()
    assert (given <= high).all()
    assert (given.max(0) > low + 0.7 * (high - low)).all()
    assert (given.min(0) < low + 0.3 * (high - low)).all()
    np.testing.assert_allclose(np.reshape(recorded.actions, (-1, 2)), given, rtol=1e-5)
    # Training sees the log-probabilities of the rollout.
    for batch in recorded.get(40):
        mask = batch.mask > 0.5
        starts = batch.episode_starts
        _, log_prob, _ = model.policy.evaluate_actions(
            batch.observations, batch.actions, batch.lstm_states, starts
        )
        np.testing.assert_allclose(log_prob[mask].detach(), batch.old_log_prob[mask], atol=1e-4)
    obs = env.reset(seed=3)[0]
    played, _ = model.policy.predict(obs, deterministic=True)
    states = RNNStates(*(2 * [tuple(th.zeros_like(part) for part in model._last_lstm_states.pi)]))
    trained = model.policy(th.as_tensor(obs)[None], states, th.ones(1), deterministic=True)[0]
    np.testing.assert_allclose(played, trained.detach().numpy()[0], rtol=1e-5)


def test_what_sb3_refuses_by_an_assertion_is_caught_as_one() -> None:
    for refused in (ValueError, AssertionError):
        with pytest.raises(refused, match=r"^clip_range_vf is -0.2, expected a positive number"):
            model(clip_range_vf=-0.2)
