"""Environments of the extras xland and control: as their own packages play them, and trained on."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import s5_envs
from s5_adapters.purejax import PPOConfig, Trainer, build_problem
from s5_adapters.purejax.tasks import play_tasks
from s5_envs.batch import reset_batch, step_batch

TINY: dict[str, Any] = {
    "memory_config": {"d_model": 8, "d_state": 8, "n_layers": 1},
    "encoder": (8,),
    "num_envs": 4,
    "num_steps": 8,
    "num_minibatches": 2,
    "num_epochs": 1,
    "total_steps": 64,
}


def needs(package: str, extra: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is missing: pip install 's5-adapters[{extra}]'")


def batch(env: Any, params: Any, num_envs: int, num_steps: int) -> Any:
    """Step a batch with random actions: ``obs (T + 1, n, ...)``, actions, and the rest of each step."""
    obs, states = jax.jit(lambda keys: reset_batch(env, keys, params))(
        jax.random.split(jax.random.key(0), num_envs)
    )
    step = jax.jit(lambda keys, states, action: step_batch(env, keys, states, action, params))
    seen, actions, rest = [obs], [], []
    for t in range(num_steps):
        keys = jax.random.split(jax.random.key(t + 1), num_envs)
        actions.append(jax.vmap(env.action_space(params).sample)(keys))
        obs, states, *others = step(keys, states, actions[-1])
        seen.append(obs)
        rest.append(others)
    return jax.tree.map(np.asarray, (seen, actions, rest))


@needs("xminigrid", "xland")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_xminigrid_s_memory_task() -> None:
    """Observations, rewards and ends are the package's own; a limit truncates; it trains."""
    import xminigrid

    env, params = s5_envs.make("xminigrid/MiniGrid-MemoryS64")
    assert env.observation_space(params).shape == (18,)
    assert params.max_steps_in_episode == 5 * 64**2
    obs, actions, rest = batch(env, params.replace(max_steps_in_episode=6), 3, 6)
    own, settings = xminigrid.make("MiniGrid-MemoryS64")
    reset, step = (jax.jit(functools.partial(method, settings)) for method in (own.reset, own.step))
    for i, key in enumerate(jax.random.split(jax.random.key(0), 3)):
        timestep = reset(key)
        np.testing.assert_array_equal(obs[0][i], timestep.observation.reshape(-1))
        for t in range(6):
            timestep = step(timestep, actions[t][i])
            _, terminated, truncated, info = rest[t]
            np.testing.assert_array_equal(info["final_observation"][i], timestep.observation.reshape(-1))
            assert (terminated[i], truncated[i]) == (False, t == 5)
    with pytest.raises(ValueError, match="unknown environment 'xminigrid/MiniGrid-MemoryS65'; expected one"):
        s5_envs.make("xminigrid/MiniGrid-MemoryS65")
    with pytest.raises(ValueError, match=r"got arguments \{'sight': 3\}; it takes: height, max_steps"):
        s5_envs.make("xminigrid/MiniGrid-MemoryS64", sight=3)
    result = Trainer(PPOConfig(env_id="xminigrid/MiniGrid-MemoryS8", **TINY)).run()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.state.params))


@needs("mujoco_playground", "control")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.timeout(3600)  # most of it compiling
def test_playground_s_tasks_and_meta_dmc() -> None:
    """One task as Playground steps it; MetaDMC trains on one and is evaluated on a held-out one."""
    env, params = s5_envs.make("playground/CartpoleSwingup")
    assert params.max_steps_in_episode == 1000
    obs, actions, rest = batch(env, params.replace(max_steps_in_episode=5), 2, 6)
    own = env.unwrapped
    from s5_envs.playground import _loaded

    task = _loaded(own.task)
    state = jax.jit(task.reset)(jax.random.split(jax.random.key(0), 2)[1])
    step = jax.jit(task.step)
    for t in range(5):
        state = step(state, jnp.asarray(actions[t][1]))
        reward, terminated, truncated, info = rest[t]
        np.testing.assert_allclose(info["final_observation"][1], state.obs, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(reward[1], state.reward, rtol=1e-4)
        assert (terminated[1], truncated[1]) == (False, t == 4)
    assert not np.allclose(obs[5][1], state.obs)  # a new episode

    config = PPOConfig(env_id="MetaDMC-v0", env_kwargs={"tasks": ["CartpoleSwingup"]}, **TINY)
    trained = Trainer(config).run().state
    held_out = {"split": "held_out", "tasks": ["CartpoleBalance"]}
    problem = build_problem(dataclasses.replace(config, env_kwargs=held_out))
    (tasks,) = play_tasks(problem, trained.params, None, 1)
    assert tasks.family == "CartpoleBalance"
    assert tasks.rewards.shape == (1, 1000)
    assert 0 < float(tasks.trial_returns[0, 0]) <= 1000
