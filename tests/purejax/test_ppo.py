"""The pure training function: vmapped, with traced learning rates, on every kind of action, and learning."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from s5_adapters.core.xla import rows
from s5_adapters.demo import CONFIGS
from s5_adapters.purejax import PPOConfig, Trainer, build_problem, make_train, training
from s5_adapters.purejax.training import update_step
from tests.marks import slow
from tests.purejax import environments  # noqa: F401  registers
from tests.purejax.helpers import small_config


@pytest.mark.slow
def test_a_vmapped_seed_agrees_with_the_run_alone():
    train = make_train(small_config())
    keys = jax.random.split(jax.random.key(0), 3)
    together = jax.jit(jax.vmap(train))(keys)
    alone = jax.jit(train)(keys[1])
    for name in PPOConfig.METRICS:
        one, other = together.metrics[name][1, 0], alone.metrics[name][0]
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-5, err_msg=name)
    assert together.metrics["policy_loss"].shape == (3, 10)


def traced(precision):
    """An update as JAX traces it, with its products' types and precisions."""
    config = small_config(precision=precision)
    problem = build_problem(config)
    state = jax.eval_shape(lambda: config.init_state(problem, jax.random.key(0), jnp.float32(1e-3)))
    return str(jax.make_jaxpr(partial(update_step, problem, config))(state))


def test_precision_reaches_the_matrix_products():
    usual = traced("default")
    assert "bf16" not in usual
    assert traced("bfloat16").count("bf16") > 20  # a CPU's products: the factors are rounded
    assert traced("float32").count("HIGHEST") > usual.count("HIGHEST")


def test_a_gpu_is_told_the_precision_by_what_it_calls_it(monkeypatch):
    for module in (training, rows):
        monkeypatch.setattr(module, "default_platform", lambda: "gpu")
    assert "BF16_BF16_F32" in traced("bfloat16")
    # What it does anyway. By its algorithm's name XLA, since JAX 0.11, compiles it for some products alone.
    tf32 = traced("tensorfloat32")
    assert "Precision.DEFAULT" in tf32
    assert "TF32" not in tf32


def test_learning_rates_may_be_traced_and_matter():
    config = small_config(anneal_learning_rate=True)
    sweep = jax.jit(jax.vmap(make_train(config), in_axes=(None, 0)))
    rates = jnp.array([config.learning_rate, 1e-2])
    metrics = sweep(jax.random.key(0), rates).metrics
    # From the rate itself down to a tenth of it: it would be zero after the last update.
    np.testing.assert_allclose(
        metrics["learning_rate"], rates[:, None] * np.arange(10, 0, -1) / 10, rtol=1e-5
    )
    assert metrics["policy_loss"][0, 0] != metrics["policy_loss"][1, 0]
    alone = Trainer(config, seed=0).run().metrics
    np.testing.assert_allclose(metrics["param_norm"][0, 0], alone["param_norm"][0], rtol=1e-5)


def test_without_learning_every_minibatch_sees_the_rollout_as_it_was():
    """A step size of nothing leaves every ratio at 1 if states, resets and columns are put together right."""
    config = small_config(
        memory_config={"d_model": 16, "d_state": 16, "n_layers": 2},
        env_id="HiddenBit",
        env_kwargs={"length": 5},
        learning_rate=1e-30,
        num_epochs=2,
    )
    metrics = jax.jit(make_train(config))(jax.random.key(0)).metrics
    assert np.abs(metrics["approx_kl"]).max() < 1e-8
    assert (np.asarray(metrics["clip_fraction"]) == 0).all()


def test_an_update_ends_where_the_policy_has_gone_too_far():
    """With a limit that the second minibatch exceeds, an update is its first step; with a wide one, all.

    Means are over what was computed, the step that exceeded the limit among it.
    """
    config = small_config(num_epochs=2, num_minibatches=2, learning_rate=0.05, total_steps=32)

    def trained(**changes):
        state, metrics = jax.jit(make_train(dataclasses.replace(config, **changes)))(jax.random.key(0))
        return int(optax.tree.get(state.opt_state, "count")), {k: float(v[0]) for k, v in metrics.items()}

    taken, free = trained(target_kl=None)
    assert (taken, free["gradient_steps"]) == (4, 4)
    taken, wide = trained(target_kl=1e6)
    assert taken == 4
    assert wide["approx_kl"] > 1e-6
    assert wide == pytest.approx(free, rel=1e-5, nan_ok=True)
    taken, narrow = trained(target_kl=1e-9)
    assert (taken, narrow["gradient_steps"]) == (1, 2)
    _, one_epoch = trained(num_epochs=1, target_kl=None)  # whose two steps are these two
    for name in ("approx_kl", "clip_fraction", "policy_loss", "value_loss", "entropy", "grad_norm"):
        assert narrow[name] == pytest.approx(one_epoch[name], rel=1e-5), name
    assert narrow["approx_kl"] > 1e-6


@pytest.mark.parametrize(
    ("env_id", "changes"),
    [
        ("Pendulum-v1", {"normalize_observations": True, "normalize_rewards": True}),
        ("Switches", {"critic_memory": "none", "memory": "gru"}),
        *slow(
            ("Catch-bsuite", {"critic_memory": "shared_detached", "max_grad_norm": None}),
            ("MemoryChain-bsuite", {"normalize_advantages": False, "clip_value_loss": False}),
        ),
    ],
)
def test_every_kind_of_action_and_observation_trains(env_id, changes):
    if changes.get("memory") == "gru":
        changes = changes | {"memory_config": {"d_model": 8, "n_layers": 1}}
    config = small_config(env_id=env_id, total_steps=64, **changes)
    result = jax.jit(make_train(config))(jax.random.key(0))
    assert (np.asarray(result.metrics["fault"]) == -1).all()
    assert int(result.state.update) == 2


SHORT_TASK = PPOConfig(
    env_id="RepeatPreviousEasy",
    env_kwargs={"k": 2},
    memory_config={"d_model": 32, "d_state": 32, "n_layers": 1, "dt_min": 0.01, "dt_max": 0.1},
    encoder=(32,),
    actor_torso=(),
    critic_torso=(),
    num_envs=16,
    num_steps=51,
    num_minibatches=2,
    learning_rate=3e-3,
    gamma=0.9,
    gae_lambda=0.8,
    entropy_coef=0.01,
    total_steps=150 * 16 * 51,
)


def test_s5_learns_to_repeat_the_card_before():
    """Without memory the suit of the card before is a guess: -0.5, or a little above by counting colours."""
    returns = np.asarray(jax.jit(make_train(SHORT_TASK))(jax.random.key(0)).metrics["episode_return"])
    assert returns[0] < -0.3
    assert returns[-5:].mean() > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_the_demos_setting_ends_high_for_every_seed(seed):
    returns = np.asarray(jax.jit(make_train(CONFIGS["s5"]))(jax.random.key(seed)).metrics["episode_return"])
    assert returns[-5:].mean() >= 0.95


@pytest.mark.slow
def test_no_policy_without_memory_reaches_what_s5_does():
    train = jax.jit(make_train(CONFIGS["feedforward"]))
    returns = np.asarray(train(jax.random.key(0)).metrics["episode_return"])
    assert returns.max() < -0.2


@pytest.mark.slow
def test_continuous_actions_learn():
    """Pendulum upright: -1200 at random, above -400 when swung up in time."""
    config = PPOConfig(
        env_id="Pendulum-v1",
        memory="feedforward",
        memory_config={"d_model": 64, "n_layers": 1},
        num_envs=32,
        num_steps=64,
        gamma=0.95,
        num_epochs=10,
        normalize_observations=True,
        normalize_rewards=True,
        total_steps=600_000,
    )
    returns = np.asarray(jax.jit(make_train(config))(jax.random.key(0)).metrics["episode_return"])
    ended = returns[~np.isnan(returns)]
    assert ended[:3].mean() < -900
    assert ended[-3:].mean() > -400
