"""The seam for algorithms: names, A2C's gradient by hand, what crosses a reset, what programs live on."""

from __future__ import annotations

import dataclasses
import gc
import json
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5_adapters.core import ActorCriticConfig
from s5_adapters.purejax import (
    A2CConfig,
    PPOConfig,
    RunConfig,
    RunOptions,
    TrainConfig,
    Trainer,
    build_problem,
    make_train,
    read_config,
    register_algorithm,
    restore_policy,
)
from s5_adapters.purejax.algorithms.a2c import a2c_loss
from s5_adapters.purejax.algorithms.algorithm import algorithm_class, algorithm_names
from s5_adapters.purejax.config import NETWORK_FIELDS
from s5_adapters.purejax.rollout import Carry, Episodes, Transitions, advantages, collect, init_carry
from tests.purejax import environments  # noqa: F401  registers
from tests.purejax.helpers import assert_same_bits, small_config


def small_a2c(**overrides: Any) -> A2CConfig:
    """``small_config`` for A2C."""
    small = small_config()
    shared = {field.name for field in dataclasses.fields(A2CConfig)} - {"optimizer", "normalize_advantages"}
    return A2CConfig(**{name: getattr(small, name) for name in shared} | overrides)


class Rolled(NamedTuple):
    """A first rollout, and what it came from."""

    problem: Any
    params: Any
    memory_state: Any
    rollout: Transitions
    episodes: Episodes
    carry: Carry


def rolled(config: TrainConfig) -> Rolled:
    problem = build_problem(config)
    params = problem.net.init(jax.random.key(1))
    start = init_carry(problem, config, jax.random.key(2))
    carry, rollout, episodes = jax.jit(lambda: collect(problem, config, params, start, jax.random.key(3)))()
    return Rolled(problem, params, start.memory_state, rollout, episodes, carry)


# --- names ------------------------------------------------------------------------------------------


def test_algorithms_are_known_by_name() -> None:
    assert {"a2c", "ppo"} <= set(algorithm_names())
    assert algorithm_class("ppo") is PPOConfig
    assert (PPOConfig.name, A2CConfig.name) == ("ppo", "a2c")
    with pytest.raises(ValueError, match=r"^algorithm: got 'a3c', expected one of a2c, [^\n]*--import"):
        algorithm_class("a3c")
    with pytest.raises(ValueError, match="algorithm 'ppo': already registered by PPOConfig"):
        register_algorithm("ppo")(A2CConfig)


def test_a_configuration_names_its_algorithm_and_one_that_does_not_is_ppos(tmp_path: Any) -> None:
    config = RunConfig(small_a2c(), seed=3)
    values = json.loads(json.dumps(config.to_dict()))
    assert values["algorithm"] == "a2c"
    assert RunConfig.from_dict(values) == config
    old = RunConfig(small_config()).to_dict()
    later = ("optimizer", "time_limit", "trial_end", "resets", "dynamics_lr_scale", "target_kl", "freeze")
    for name in ("algorithm", "cnn_features", "lr_scales", *later):
        del old[name]
    assert RunConfig.from_dict(old) == RunConfig(small_config())
    (tmp_path / "old" / "checkpoints").mkdir(parents=True)
    (tmp_path / "old" / "config.json").write_text(json.dumps(old))
    assert read_config(tmp_path / "old").training.target_kl is None, "as it was when that run began"
    with pytest.raises(ValueError, match="unknown field 'clip_range', expected one of"):
        RunConfig.from_dict(values | {"clip_range": 0.2})
    (tmp_path / "run.toml").write_text('algorithm = "a2c"\noptimizer = "adam"\n')
    assert read_config(tmp_path / "run.toml") == RunConfig(A2CConfig(optimizer="adam"))


@pytest.mark.parametrize(
    "config",
    [
        PPOConfig(),
        PPOConfig(target_kl=None, gamma=0.9).completed(),
        PPOConfig.paper(),
        small_a2c(memory="gru", memory_config={"d_model": 8}, env_kwargs={"size": 3}),
    ],
)
def test_what_a_configuration_tells_is_what_a_file_cannot_leave_out(config: Any, tmp_path: Any) -> None:
    """Hence sweeps know their cells whatever fields come later, and whatever defaults do."""
    told = config.told()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text(json.dumps(told | {"algorithm": config.name}))
    assert read_config(tmp_path).training.told() == told

    @dataclasses.dataclass(frozen=True)
    class Later(type(config)):  # type: ignore[misc]
        FORMERLY = type(config).FORMERLY | {"gae_lambda": type(config)().gae_lambda}
        gae_lambda: float = 0.123
        another: bool = False

    later = Later.from_record(told)
    assert later.told() == told
    assert later.gae_lambda == config.gae_lambda
    changes = {"another": True, "gae_lambda": 0.123}
    assert dataclasses.replace(later, **changes).told() == told | changes


def test_the_networks_fields_are_those_of_the_network() -> None:
    """Defined once for the trainer; the network has three more, which the environment decides."""
    network = {field.name for field in dataclasses.fields(ActorCriticConfig)}
    assert set(NETWORK_FIELDS) == network - {"obs_shape", "action", "action_mask"}
    assert set(PPOConfig().network) == set(NETWORK_FIELDS)


# --- A2C --------------------------------------------------------------------------------------------


def test_a2cs_gradient_is_that_of_the_formula() -> None:
    """Mnih et al. (arXiv 1602.01783): the sum of grad log pi A, of the value errors, and of the entropies.

    The derivatives of loss by logits and values are written down by hand; the network's own come from JAX.
    """
    config = small_a2c(entropy_coef=0.03, value_coef=0.7, gae_lambda=1.0)
    problem, params, memory_state, rollout, *_ = rolled(config)
    advantage, target = advantages(rollout, config.gamma, config.gae_lambda)
    grads = jax.grad(a2c_loss, has_aux=True)(
        params, problem, config, rollout, memory_state, advantage, target
    )[0]

    def network(params: Any) -> Any:
        return problem.net.apply(params, memory_state, rollout.obs, rollout.episode_starts)[1:]

    (logits, value), pull_back = jax.vjp(network, params)
    log_probs = np.asarray(jax.nn.log_softmax(logits), np.float64)
    probs, steps = np.exp(log_probs), rollout.reward.size
    taken = np.eye(problem.action.n)[np.asarray(rollout.action)]
    entropy = -(probs * log_probs).sum(-1, keepdims=True)
    by_logits = -np.asarray(advantage)[..., None] * (taken - probs)
    by_logits += config.entropy_coef * probs * (log_probs + entropy)
    by_value = config.value_coef * (np.asarray(value) - np.asarray(target))
    cotangents = tuple(jnp.array(x / steps, jnp.float32) for x in (by_logits, by_value))
    (expected,) = pull_back(cotangents)
    for ours, theirs in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-6)


def test_with_lambda_one_the_targets_are_n_step_returns() -> None:
    config = small_a2c(gae_lambda=1.0, env_id="HiddenBit", env_kwargs={"length": 3, "terminates": True})
    rollout = rolled(config).rollout
    _, target = advantages(rollout, config.gamma, config.gae_lambda)
    expected = np.zeros_like(target)
    following = np.asarray(rollout.final_value[-1])
    for t in reversed(range(config.num_steps)):
        following = np.where(rollout.terminated[t], 0.0, following)
        expected[t] = following = np.asarray(rollout.reward[t]) + config.gamma * following
    np.testing.assert_allclose(target, expected, rtol=1e-5, atol=1e-6)


def test_a2c_learns_nothing_from_before_a_reset() -> None:
    """An episode's loss has no gradient by what was seen before it, though one memory walks through both."""
    config = small_a2c(env_id="HiddenBit", env_kwargs={"length": 4, "terminates": True})
    problem, params, memory_state, rollout, *_ = rolled(config)
    starts = np.flatnonzero(np.asarray(rollout.episode_starts)[:, 0])
    assert list(starts) == [0, 4]
    advantage, target = advantages(rollout, config.gamma, config.gae_lambda)

    def loss_of_second(obs: jax.Array) -> Any:
        given = rollout._replace(obs=obs)
        _, dist_inputs, value = problem.net.apply(params, memory_state, obs, given.episode_starts)
        return (dist_inputs[4:] ** 2).sum() + (value[4:] * advantage[4:]).sum() + target.sum()

    by_obs = np.asarray(jax.grad(loss_of_second)(rollout.obs))
    assert (by_obs[:4] == 0).all()
    assert (by_obs[4:] != 0).any()
    # And a NaN seen before it does not reach the gradient of the parameters' loss over the second episode.
    dirty = rollout._replace(obs=rollout.obs.at[:4].set(jnp.nan))
    later = jax.tree.map(lambda x: x[4:], dirty)
    grads = jax.grad(a2c_loss, has_aux=True)(
        params, problem, config, later, memory_state, advantage[4:], target[4:]
    )[0]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_a2c_takes_one_step_over_the_whole_rollout() -> None:
    """An update is one gradient step from what was collected, of the size that RMSProp's first has."""
    config = small_a2c(max_grad_norm=None, anneal_learning_rate=False, adam_eps=1e-8, num_steps=16)
    problem = build_problem(config)
    state = config.init_state(problem, jax.random.key(0), jnp.float32(1e-3))
    after, metrics = jax.jit(lambda state: config.update(problem, state))(state)
    moved = jax.tree.map(lambda one, other: jnp.abs(one - other).max(), after.params, state.params)
    # scale_by_rms: g / sqrt(0.01 g^2) = 10, times the learning rate.
    np.testing.assert_allclose(max(jax.tree.leaves(moved)), 1e-2, rtol=1e-3)
    assert set(metrics) == set(A2CConfig.METRICS)
    assert float(metrics["fault"]) == -1


@pytest.mark.slow
@pytest.mark.parametrize("normalize", [False, True])
def test_a2cs_published_setting_for_bsuite_runs(normalize: bool) -> None:
    config = A2CConfig(
        env_id="MemoryChain-bsuite",
        num_envs=1,
        num_steps=32,
        optimizer="adam",
        learning_rate=3e-4,
        gamma=0.99,
        gae_lambda=0.9,
        encoder=(256, 256),
        activation="relu",
        entropy_coef=0.0,
        memory_config={"d_model": 16, "n_layers": 1},
        normalize_observations=normalize,
        total_steps=96,
    )
    result = jax.jit(make_train(config))(jax.random.key(0))
    assert (np.asarray(result.metrics["fault"]) == -1).all()
    assert int(result.state.update) == 3


def test_a2c_resumes_with_the_same_bits_evaluates_and_names_what_is_not_finite(tmp_path: Any) -> None:
    config = small_a2c(normalize_observations=True)
    options = RunOptions(chunk_updates=3, checkpoint_every=6, keep_checkpoints=9)
    whole = Trainer(config, seed=3, run_dir=tmp_path / "run", options=options).run()
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "10")
    resumed = Trainer.resume(tmp_path / "run")
    assert (resumed.update, resumed.config) == (6, config.completed())
    assert_same_bits(resumed.run().state, whole.state)
    policy = restore_policy(tmp_path / "run")
    assert np.isfinite(policy.evaluate(3).mean)
    assert policy.to_portable().training["config"]["algorithm"] == "a2c"
    quantities = {config.name_fault(fault) for fault in range(8)}
    assert "the policy loss" in quantities
    assert "the norm of the parameters" in quantities
    assert small_config().name_fault(8) == "the value loss in epoch 1, minibatch 2"


LEARNING = A2CConfig(
    env_id="RepeatPreviousEasy",
    env_kwargs={"k": 2},
    memory_config={"d_model": 32, "d_state": 32, "n_layers": 1, "dt_min": 0.01, "dt_max": 0.1},
    encoder=(32,),
    actor_torso=(),
    critic_torso=(),
    optimizer="adam",
    num_envs=16,
    num_steps=16,
    learning_rate=4e-3,
    gamma=0.9,
    gae_lambda=0.8,
    entropy_coef=0.01,
    total_steps=2000 * 16 * 16,
)


@pytest.mark.slow
def test_a2c_learns_to_repeat_the_card_before() -> None:
    """Without memory the suit of the card before is a guess: -0.5, or a little above by counting colours."""
    returns = np.asarray(jax.jit(make_train(LEARNING))(jax.random.key(0)).metrics["episode_return"])
    ended = returns[~np.isnan(returns)]
    assert ended[0] < -0.3
    assert ended[-20:].mean() > 0.8


# --- options that algorithms share -------------------------------------------------------------------


def test_a_time_limit_may_be_taken_for_the_end() -> None:
    """HiddenBit is truncated after 4 steps. By hand: nothing follows, so targets are sums of rewards."""
    settings = {"env_id": "HiddenBit", "env_kwargs": {"length": 4}, "gamma": 0.5, "gae_lambda": 1.0}
    one = rolled(small_config(**settings)).rollout
    _, _, _, other, episodes, _ = rolled(small_config(**settings, time_limit="terminal"))
    np.testing.assert_array_equal(one.obs, other.obs)
    np.testing.assert_array_equal(one.truncated, other.terminated)
    assert np.asarray(one.truncated)[3].all()
    assert not np.asarray(other.truncated).any()
    bit = np.asarray(episodes.reward)[0]  # the same at every step of an episode
    _, target = advantages(other, 0.5, 1.0)
    by_hand = [1.875 * bit, 1.75 * bit, 1.5 * bit, bit]
    np.testing.assert_allclose(target[:4], by_hand, rtol=1e-5, atol=1e-6)
    _, target = advantages(one, 0.5, 1.0)
    after = np.asarray(one.final_value)[3]
    by_hand = [sums + after * 0.5**n for sums, n in zip(by_hand, (4, 3, 2, 1), strict=True)]
    np.testing.assert_allclose(target[:4], by_hand, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("time_limit", ["bootstrap", "terminal"])
def test_a_trials_end_may_be_taken_for_the_end(time_limit: Any) -> None:
    """Two trials of 3 steps are a task. By hand: nothing follows a trial; the memory knows of tasks alone."""
    settings = {"env_id": "TwoTrials", "gamma": 0.5, "gae_lambda": 1.0, "num_steps": 8}
    one = rolled(small_config(**settings, time_limit=time_limit)).rollout
    _, _, _, other, episodes, _ = rolled(
        small_config(**settings, time_limit=time_limit, trial_end="terminal", normalize_rewards=True)
    )
    np.testing.assert_array_equal(one.obs, other.obs)
    np.testing.assert_array_equal(one.episode_starts, other.episode_starts)
    np.testing.assert_array_equal(np.asarray(episodes.done).any(axis=1).nonzero()[0], [5])
    ends = np.asarray(other.terminated)
    assert ends[[2, 5]].all()
    assert ends.sum() == 2 * ends.shape[1]
    assert not np.asarray(other.truncated).any()
    reward = np.asarray(other.reward)
    _, target = advantages(other, 0.5, 1.0)
    for end in (2, 5):
        by_hand = [
            reward[end - 2 : end + 1].T @ [1, 0.5, 0.25],
            reward[end - 1 : end + 1].T @ [1, 0.5],
            reward[end],
        ]
        np.testing.assert_allclose(target[end - 2 : end + 1], by_hand, rtol=1e-5, atol=1e-6)
    after = np.asarray(other.final_value)[-1]
    np.testing.assert_allclose(target[-1], reward[-1] + 0.5 * after, rtol=1e-5, atol=1e-6)
    _, longer = advantages(one, 0.5, 1.0)
    assert not np.allclose(longer[2], np.asarray(one.reward)[2]), "otherwise the next trial's return is in it"
    with pytest.raises(
        ValueError, match=r"^trial_end: got 'terminal' with HiddenBit, which has no trials; exp"
    ):
        build_problem(small_config(env_id="HiddenBit", trial_end="terminal"))


def test_without_resets_the_memory_carries_on() -> None:
    """In the rollout, in what is learned from, and in evaluation, the memory is never told of an episode."""
    settings = {"env_id": "HiddenBit", "env_kwargs": {"length": 3}}
    problem, params, memory_state, rollout, episodes, after = rolled(small_config(**settings, resets=False))
    assert np.asarray(episodes.done).any()
    assert not np.asarray(rollout.episode_starts).any()
    nowhere = np.zeros(rollout.reward.shape, bool)
    state, _, values = problem.net.apply(params, memory_state, rollout.obs, jnp.array(nowhere))
    np.testing.assert_allclose(values, rollout.value, atol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(after.memory_state), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    starts = jnp.ones(2, bool)
    assert not problem.memory_starts(starts).any()
    assert build_problem(small_config(**settings)).memory_starts(starts).all()


def moved(config: Any) -> dict[str, float]:
    """How far the first update moves each parameter, at most, by the last part of its name."""
    problem = build_problem(config)
    state = config.init_state(problem, jax.random.key(0), jnp.float32(1e-3))
    after, _ = jax.jit(lambda state: config.update(problem, state))(state)
    far = jax.tree.map(lambda one, other: float(jnp.abs(one - other).max()), after.params, state.params)
    return {path[-1].key: distance for path, distance in jax.tree_util.tree_leaves_with_path(far)}


def test_the_memorys_dynamics_may_learn_more_slowly() -> None:
    one, other = moved(small_a2c()), moved(small_a2c(dynamics_lr_scale=0.1))
    assert one.keys() == other.keys() >= {"lambda_re", "lambda_im", "log_dt", "B", "gate_kernel", "kernel"}
    for name, distance in one.items():
        slower = 0.1 if name in ("lambda_re", "lambda_im", "log_dt") else 1.0
        np.testing.assert_allclose(other[name], slower * distance, rtol=1e-3, atol=2e-6, err_msg=name)
    gru = small_a2c(memory="gru", memory_config={"d_model": 8, "n_layers": 1}, dynamics_lr_scale=0.1)
    with pytest.raises(ValueError, match=r"^dynamics_lr_scale: got 0.1, expected 1 with memory 'gru'$"):
        build_problem(gru)


# --- programs live as long as somebody holds them -----------------------------------------------------


def live() -> int:
    gc.collect()
    return len(jax.local_devices(backend="cpu")[0].client.live_executables())


@pytest.mark.slow
def test_trainers_share_their_programs_and_leave_none_behind() -> None:
    options = RunOptions(evaluation_episodes=2)

    def trainer(width: int, seed: int = 0) -> Trainer:
        config = small_config(memory_config={"d_model": width, "d_state": 8, "n_layers": 1}, total_steps=64)
        made = Trainer(config, seed=seed, options=options)
        made.run()
        made.evaluate()
        return made

    first = trainer(8)
    held = live()
    second = trainer(8, seed=1)
    assert second.problem is first.problem
    assert live() == held
    third = trainer(10)
    assert live() > held
    del third
    assert live() == held
    del first, second
    assert live() < held
