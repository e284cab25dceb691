"""Make small examples of every file that this project writes, with what they must give, for later code.

Run it with the code whose files are wanted. `9a225f5/` was made so, in a checkout of this repository,
on a CPU with Python 3.11 and the versions of `constraints.txt`:

    git worktree add ../9a225f5 9a225f5
    PYTHONPATH=../9a225f5:../9a225f5/envs JAX_PLATFORMS=cpu python tests/formats/make.py tests/formats/9a225f5

`tests` is that commit's as well: `tests/portable.py` and `tests/purejax/helpers.py` are used here. For each
file there is an `.npz`: `obs/NAME` `(T, B, ...)`, `starts` `(T, B)` and, as `out/NAME`, what the file's
model gives on them, step by step from an empty state. What is large or a folder is packed into a `.zip`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import jax
import numpy as np
import ray
import torch
from gymnasium.wrappers import TimeAwareObservation
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

import s5_adapters
from s5_adapters import Box, load_policy, save_policy
from s5_adapters.purejax import InterruptedRunError, RunOptions, Trainer, restore_policy
from s5_adapters.purejax.logging import read_log
from s5_adapters.purejax.progress import Silent, Status
from s5_adapters.rllib import S5PPOConfig
from s5_adapters.sb3 import S5Policy, S5RecurrentPPO
from tests.portable import core_outputs, in_rllib, make_policy, observe, rllib_outputs
from tests.purejax.helpers import small_config

Arrays = Mapping[str, np.ndarray]

STEPS, BATCH = 8, 2
NETWORK = {"d_model": 8, "d_state": 8, "n_layers": 1}
TORSOS = {"encoder": [6], "actor_torso": [7], "critic_torso": [5]}
STOPPED_AFTER = 5


def main(folder: Path) -> None:
    """Write everything into a folder that does not exist yet."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True)
    print(f"the files of {Path(s5_adapters.__file__).parent}")
    make_policies(folder)
    make_run(folder)
    make_sb3(folder)
    make_rllib(folder)
    for path in sorted(folder.iterdir()):
        print(f"{path.stat().st_size:>8,} {path.name}")
    print(f"{sum(path.stat().st_size for path in folder.iterdir()):>8,} bytes in all")


# --- policy files -----------------------------------------------------------------------------------


def make_policies(folder: Path) -> None:
    """Three policies with random weights, in environments that the trainer knows; an image's packed."""
    vector = make_policy(obs_shape=(4,))
    vector = replace(vector, env_id="RepeatPreviousEasy", training={"steps": 320, "note": "made by hand"})
    box = make_policy(
        obs_shape=(3,), action=Box((-2.0,), (2.0,)), critic_memory="separate", statistics=True, seed=1
    )
    assert box.obs_statistics is not None
    like_the_trainers = replace(box.obs_statistics, epsilon=1e-8, clip=10.0)
    box = replace(box, env_id="Pendulum-v1", obs_statistics=like_the_trainers)
    image = make_policy(obs_shape=(36, 36, 2), cnn_features=6, seed=2)
    image = replace(image, params=jax.tree.map(coarse, image.params))
    for name, policy in (("vector", vector), ("box", box), ("image", image)):
        path = folder / f"{name}.safetensors"
        save_policy(path, policy)
        obs, starts = observe(policy.config, 2 if name == "image" else STEPS, BATCH)
        inputs, values = core_outputs(load_policy(path), obs, starts)
        write_outputs(folder / name, {"obs": obs}, starts, {"inputs": inputs, "values": values})
        if name == "image":
            pack(path, folder / "image.zip")
            path.unlink()


def coarse(leaf: Any) -> np.ndarray:
    """Weights of a few values only, which a zip holds in a few bits each: a Nature CNN is 290 KB."""
    leaf = np.asarray(leaf)
    return (
        leaf if leaf.size < 1000 else (np.round(leaf / leaf.std()) * np.float32(0.03125)).astype(np.float32)
    )


# --- the trainer's run --------------------------------------------------------------------------------


class InterruptAt(Silent):
    """Stops the run as Ctrl-C does."""

    def __init__(self, update: int):
        self.update = update

    def show(self, status: Status) -> None:
        """Be called after every chunk."""
        if status.update == self.update:
            os.kill(os.getpid(), signal.SIGINT)


def make_run(folder: Path) -> None:
    """A run stopped half-way (`run.zip`), and what the same run gave that went on to its end."""
    config = small_config(normalize_observations=True, normalize_rewards=True, anneal_learning_rate=True)
    options = RunOptions(chunk_updates=1, evaluate_every=4, evaluation_episodes=2, checkpoint_every=100)
    with tempfile.TemporaryDirectory() as temporary:
        stopped, whole = Path(temporary, "run"), Path(temporary, "whole")
        try:
            Trainer(
                config, seed=3, run_dir=stopped, options=options, reporter=InterruptAt(STOPPED_AFTER)
            ).run()
        except InterruptedRunError as stop:
            print(str(stop).replace(temporary, "..."))
        pack(stopped, folder / "run.zip")
        Trainer(config, seed=3, run_dir=whole, options=options).run()
        rows = [row for row in read_log(whole) if row["update"] > STOPPED_AFTER]
        (folder / "run_log.json").write_text(json.dumps(rows, indent=1) + "\n")
        save_policy(folder / "run_end.safetensors", restore_policy(whole).to_portable())


# --- Stable-Baselines3 --------------------------------------------------------------------------------


def cartpole(dictionary: bool = False) -> VecEnv:
    """Two of them; with Dict observations, `obs` and `time`, if so wanted."""

    def make() -> gym.Env:
        env = gym.make("CartPole-v1")
        return TimeAwareObservation(env, flatten=False) if dictionary else env

    return DummyVecEnv([make, make])


def make_sb3(folder: Path) -> None:
    """Models of both algorithms after one update, a policy alone, and VecNormalize's file (`sb3.zip`)."""
    short: dict[str, Any] = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, "seed": 0}
    small = {**NETWORK, "net_arch": [7]}
    separate = {**small, "enable_critic_lstm": True, "encoder": [6]}
    normalized = VecNormalize(cartpole(), clip_obs=5.0)
    models = {
        "sb3_stock": RecurrentPPO("S5Policy", normalized, policy_kwargs=small, **short),
        "sb3_segments": S5RecurrentPPO("S5Policy", cartpole(), policy_kwargs=small, **short),
        "sb3_dict": S5RecurrentPPO("MultiInputS5Policy", cartpole(True), policy_kwargs=separate, **short),
    }
    policy = make_policy(obs_shape=(4,), action=s5_adapters.Discrete(2), statistics=True, seed=3)
    with tempfile.TemporaryDirectory() as temporary:
        weights = Path(temporary, "weights.safetensors")
        save_policy(weights, policy)
        given = {"weights": str(weights)}
        models["sb3_weights"] = S5RecurrentPPO("S5Policy", cartpole(), policy_kwargs=given, **short)
        weights.unlink()  # what is written needs it no more
        for name, model in models.items():
            model.learn(16)
            model.save(Path(temporary, name))
            write_sb3_outputs(folder / name, model.policy)
        normalized.save(str(Path(temporary, "sb3_stock_vecnormalize.pkl")))
        models["sb3_weights"].policy.save(str(Path(temporary, "sb3_policy.pth")))
        pack(Path(temporary), folder / "sb3.zip")


def write_sb3_outputs(path: Path, policy: S5Policy) -> None:
    rng = np.random.default_rng(5)
    space = policy.observation_space
    shapes = {"obs": space.shape} if space.shape else {name: part.shape for name, part in space.items()}
    obs = {name: rng.normal(size=(STEPS, BATCH, *shape)).astype(np.float32) for name, shape in shapes.items()}
    starts = rng.random((STEPS, BATCH)) < 0.2
    write_outputs(path, obs, starts, play_sb3(policy, obs, starts))


@torch.no_grad()
def play_sb3(policy: S5Policy, obs: Arrays, starts: np.ndarray) -> dict[str, np.ndarray]:
    """What `predict` and `forward` give step by step, and the states after the last one."""
    layers, _, width = policy.lstm_hidden_state_shape
    empty = torch.zeros(layers, starts.shape[1], width)
    states, predicted, steps = RNNStates((empty, empty), (empty, empty)), None, []
    policy.set_training_mode(False)
    for t, start in enumerate(starts):
        now: Any = {name: part[t] for name, part in obs.items()} if len(obs) > 1 else obs["obs"][t]
        actions, predicted = policy.predict(now, predicted, start, deterministic=True)
        tensors, _ = policy.obs_to_tensor(now)
        first = torch.from_numpy(start).float()
        _, values, log_probs, states = policy.forward(tensors, states, first, deterministic=True)
        steps.append((actions, values[:, 0].numpy(), log_probs.numpy()))
    outputs = dict(
        zip(("actions", "values", "log_probs"), map(np.stack, zip(*steps, strict=True)), strict=True)
    )
    assert predicted is not None
    parts = {"predicted": predicted, "pi": states.pi, "vf": states.vf}
    return outputs | {
        f"{name}_{i}": torch.as_tensor(part).numpy().copy()
        for name, pair in parts.items()
        for i, part in enumerate(pair)
    }


# --- RLlib --------------------------------------------------------------------------------------------


def make_rllib(folder: Path) -> None:
    """Algorithms of both API stacks after one update, and a module that began from a policy."""
    algorithms = {"rllib": new_stack(), "rllib_old": old_stack()}
    ray.init(num_cpus=1, include_dashboard=False, address="local", log_to_driver=False)
    with tempfile.TemporaryDirectory() as temporary:
        for name, config in algorithms.items():
            algorithm = config.build_algo()
            algorithm.train()
            save = algorithm.save if name == "rllib_old" else algorithm.save_to_path
            save(str(Path(temporary, name)))
            pack(Path(temporary, name), folder / f"{name}.zip")
            play = play_old_stack if name == "rllib_old" else play_rllib
            write_rllib_outputs(folder / name, algorithm, play)
            algorithm.stop()
        weights, policy = Path(temporary, "weights"), make_policy(obs_shape=(4,), statistics=True, seed=4)
        save_policy(weights, policy)
        module = in_rllib(str(weights), policy.config)
        module.save_to_path(Path(temporary, "module"))
        pack(Path(temporary, "module"), folder / "rllib_module.zip")
        write_rllib_outputs(folder / "rllib_module", module, play_module)
    ray.shutdown()


def new_stack() -> S5PPOConfig:
    return (
        S5PPOConfig()
        .environment("RepeatPreviousEasy")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2)
        .rl_module(model_config={**NETWORK, **TORSOS, "max_seq_len": 8})
        .training(train_batch_size_per_learner=64, minibatch_size=64, num_epochs=1)
        .debugging(seed=0)
    )


def old_stack() -> PPOConfig:
    model = {"custom_model": "s5", "custom_model_config": {**NETWORK, **TORSOS}, "max_seq_len": 8}
    return (
        PPOConfig()
        .api_stack(enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False)
        .framework("torch")
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2)
        .training(train_batch_size=64, minibatch_size=64, num_epochs=1, model=model)
        .debugging(seed=0)
    )


def write_rllib_outputs(path: Path, model: Any, play: Any) -> None:
    rng = np.random.default_rng(6)
    obs = rng.normal(size=(STEPS, BATCH, 4)).astype(np.float32)
    starts = rng.random((STEPS, BATCH)) < 0.2
    starts[0] = True
    write_outputs(path, {"obs": obs}, starts, play(model, obs, starts))


def play_module(module: Any, obs: np.ndarray, starts: np.ndarray) -> dict[str, np.ndarray]:
    """An RLModule's action distribution inputs and values."""
    inputs, values = rllib_outputs(module, obs, starts)
    return {"inputs": inputs, "values": values}


def play_rllib(algorithm: PPO, obs: np.ndarray, starts: np.ndarray) -> dict[str, np.ndarray]:
    """Those of an algorithm's module."""
    return play_module(algorithm.get_module(), obs, starts)


def play_old_stack(algorithm: PPO, obs: np.ndarray, starts: np.ndarray) -> dict[str, np.ndarray]:
    """Those of a policy of the old API stack, and the state after the last step."""
    policy = algorithm.get_policy()
    empty = np.zeros((len(obs[0]), *policy.get_initial_state()[0].shape), np.float32)
    state, steps = empty, []
    for x, start in zip(obs, starts, strict=True):
        state = np.where(start[:, None], empty, state)
        _, (state,), extra = policy.compute_actions(x, [state], explore=False)
        steps.append((extra["action_dist_inputs"], extra["vf_preds"]))
    inputs, values = map(np.stack, zip(*steps, strict=True))
    return {"inputs": inputs, "values": values, "state": state}


# --- writing and reading them -------------------------------------------------------------------------


def write_outputs(path: Path, obs: Arrays, starts: np.ndarray, outputs: Arrays) -> None:
    """Write `path.npz`."""
    arrays = {f"obs/{name}": part for name, part in obs.items()}
    arrays |= {f"out/{name}": part for name, part in outputs.items()}
    np.savez_compressed(path.with_name(f"{path.name}.npz"), starts=starts, **arrays)


def read_outputs(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, np.ndarray]]:
    """Observations, episode starts and outputs of a `path.npz`."""
    with np.load(path.with_name(f"{path.name}.npz")) as arrays:
        obs, outputs = (
            {name.removeprefix(prefix): arrays[name] for name in arrays.files if name.startswith(prefix)}
            for prefix in ("obs/", "out/")
        )
        return obs, arrays["starts"], outputs


def pack(source: Path, archive: Path) -> None:
    """Zip a file, or a folder's contents, empty folders included."""
    files = sorted(source.rglob("*")) if source.is_dir() else [source]
    base = source if source.is_dir() else source.parent
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for file in files:
            packed.write(file, file.relative_to(base))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
