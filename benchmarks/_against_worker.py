"""One side of `against.py`: builds a case with whatever checkout PYTHONPATH names, and times it.

Reads lines `case` from its input and answers each by one line of JSON: seconds of one sample, or, the first
time, the seconds of building and of the first call, compilation included. Everything here uses only what both
an old and a new checkout offer.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

NUM_ENVS, NUM_STEPS = 8, 128
S5 = {"d_model": 64, "d_state": 64, "n_layers": 2, "dt_min": 0.01, "dt_max": 1.0}
Sample = Callable[[], Any]


def repeated(call: Sample, times: int) -> Sample:
    """Return a sample of many calls, the last of which is waited for."""
    import jax

    def sample() -> None:
        for _ in range(times):
            result = call()
        jax.block_until_ready(result)

    return sample


def memory() -> tuple[Any, Any, Any, Any]:
    """Make a stack of two layers, its parameters, and a batch of 1,024 steps of 8 sequences."""
    import jax

    from s5_adapters.core import make_memory

    stack = make_memory("s5", **S5)
    x = np.random.default_rng(0).normal(size=(1024, 8, 64)).astype(np.float32)
    starts = np.zeros((1024, 8), bool)
    starts[::100] = True
    with warnings.catch_warnings():  # formerly init took an example of everything
        warnings.simplefilter("ignore", DeprecationWarning)
        params = stack.init(jax.random.key(0), stack.initial_state(8), x, starts)
    return stack, params, x, starts


def layer() -> Sample:
    """Forward and backward over a batch of sequences."""
    import jax

    stack, params, x, starts = memory()

    def loss(params: Any, x: Any) -> Any:
        return (stack.apply(params, stack.initial_state(8), x, starts)[1] ** 2).sum()

    program = jax.jit(jax.grad(loss, argnums=(0, 1)))
    return repeated(lambda: program(params, x), 5)


def acting() -> Sample:
    """One step of 32 sequences with prepared weights."""
    import jax

    stack, params, x, _ = memory()
    prepared, step = jax.jit(stack.prepare)(params), jax.jit(stack.step)
    state, inputs, starts = stack.initial_state(32), np.tile(x[0], (4, 1)), np.zeros(32, bool)
    return repeated(lambda: step(prepared, state, inputs, starts), 500)


def trainer() -> Sample:
    """Ten updates of PPO on RepeatPreviousEasy, 32 environments x 104 steps."""
    import jax

    from s5_adapters.purejax import PPOConfig, make_train

    config = PPOConfig(env_id="RepeatPreviousEasy", memory_config=S5, total_steps=10 * 32 * 104)
    program = jax.jit(make_train(config))
    return repeated(lambda: program(jax.random.key(0)).metrics, 1)


def sb3_model(algorithm: str) -> tuple[Any, Sample]:
    """Make a recurrent PPO on CartPole without velocities, set up to learn."""
    import gymnasium as gym
    import sb3_contrib
    import torch
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    from s5_adapters.sb3 import S5RecurrentPPO

    def positions() -> gym.Env:
        env = gym.make("CartPole-v1")
        space = gym.spaces.Box(env.observation_space.low[[0, 2]], env.observation_space.high[[0, 2]])
        return gym.wrappers.TransformObservation(env, lambda obs: obs[[0, 2]], space)

    torch.set_num_threads(1)
    cls = {"segments": S5RecurrentPPO, "stock": sb3_contrib.RecurrentPPO}[algorithm]
    model = cls(
        "S5Policy",
        VecNormalize(make_vec_env(positions, n_envs=NUM_ENVS, seed=0)),
        n_steps=NUM_STEPS,
        batch_size=256,
        n_epochs=2,
        seed=0,
        policy_kwargs={"net_arch": {"pi": [], "vf": [64]}, "ortho_init": False, **S5},
    )
    _, callback = model._setup_learn(10**9, None)
    return model, lambda: model.collect_rollouts(model.env, callback, model.rollout_buffer, NUM_STEPS)


def collecting(algorithm: str) -> Sample:
    """One rollout of Stable-Baselines3."""
    return sb3_model(algorithm)[1]


def sb3_update() -> Sample:
    """One update of `S5RecurrentPPO`, of a rollout that stays the same."""
    model, collect = sb3_model("segments")
    collect()
    return model.train


def predicting(envs: int) -> Sample:
    """Two hundred calls of `predict`."""
    model, _ = sb3_model("segments")
    obs = np.random.default_rng(0).normal(size=(envs, 2)).astype(np.float32)
    starts = np.zeros(envs, bool)

    def sample() -> None:
        state = None
        for _ in range(200):
            _, state = model.predict(obs, state, starts, deterministic=True)

    return sample


def rllib(part: int) -> Sample:
    """4,096 steps of sampling (0), or the update that follows (1), on RepeatPreviousEasy."""
    import ray
    import torch

    from s5_adapters.rllib import S5PPOConfig

    torch.set_num_threads(1)
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
    torsos = {"encoder": [64], "actor_torso": [64], "critic_torso": [64], "max_seq_len": 52}
    algo = (
        S5PPOConfig()
        .environment("RepeatPreviousEasy")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
        .training(train_batch_size_per_learner=4096, minibatch_size=1024, num_epochs=2)
        .rl_module(model_config=S5 | torsos)
        .debugging(seed=0)
        .build_algo()
    )
    if part == 0:
        return lambda: algo.env_runner.sample(num_timesteps=4096)
    episodes = algo.env_runner.sample(num_timesteps=4096)
    return lambda: algo.learner_group.update(
        episodes=episodes,
        timesteps={"num_env_steps_sampled_lifetime": 0},
        num_epochs=2,
        minibatch_size=1024,
        shuffle_batch_per_epoch=True,
    )


CASES: dict[str, Callable[[], Sample]] = {
    "layer, forward and backward": layer,
    "acting, a step of 32": acting,
    "trainer, ten updates": trainer,
    "SB3, collecting, segments": lambda: collecting("segments"),
    "SB3, collecting, stock": lambda: collecting("stock"),
    "SB3, update": sb3_update,
    "SB3, predict, 1 environment": lambda: predicting(1),
    "SB3, predict, 16 environments": lambda: predicting(16),
    "RLlib, sampling": lambda: rllib(0),
    "RLlib, update": lambda: rllib(1),
}


def main() -> None:
    """Answer until the input ends."""
    built: dict[str, Sample] = {}
    answers = sys.stdout
    sys.stdout = sys.stderr  # what libraries print is no answer
    for line in sys.stdin:
        case = line.rstrip("\n")
        began = time.perf_counter()
        if case in built:
            built[case]()
        else:
            built[case] = CASES[case]()
            built[case]()
        print(json.dumps(time.perf_counter() - began), file=answers, flush=True)


if __name__ == "__main__":
    main()
