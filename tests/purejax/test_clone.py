"""Behaviour cloning: episodes into a file, a policy out of it that does what they did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import s5_envs
from s5_adapters import load_policy
from s5_adapters.cli import main
from s5_adapters.purejax import PPOConfig, RunConfig, Trainer, build_problem
from s5_adapters.purejax.cloning import _Learner, clone
from s5_adapters.purejax.episodes import Episodes, discounted_returns, load_episodes, save_episodes
from s5_adapters.purejax.restore import from_file
from s5_envs.batch import reset_batch, step_batch
from s5_envs.optimal import best_action
from tests import guarded  # noqa: F401  registers
from tests.purejax.helpers import small_config


def best_play(env_id: str, num_episodes: int, length: int, *, seed: int = 0) -> Episodes:
    """Whole episodes of the best-known play, each in an environment of its own."""
    env, params = s5_envs.make(env_id)
    obs, state = reset_batch(env, jax.random.split(jax.random.key(seed), num_episodes), params)

    def step(carry: Any, key: jax.Array) -> Any:
        obs, state = carry
        action = jax.vmap(lambda one: best_action(env, one))(state).astype(jnp.int32)
        keys = jax.random.split(key, num_episodes)
        after, state, reward, *_ = step_batch(env, keys, state, action, params)
        return (after, state), (obs, action, reward)

    keys = jax.random.split(jax.random.key(seed + 1), length)
    _, steps = jax.jit(lambda carry: jax.lax.scan(step, carry, keys))((obs, state))
    obs, actions, rewards = (np.asarray(x).swapaxes(0, 1).reshape(-1, *x.shape[2:]) for x in steps)
    starts = np.tile(np.arange(length) == 0, num_episodes)
    return Episodes(obs, actions, starts, rewards)


@pytest.fixture(scope="module")
def recorded() -> Episodes:
    return best_play("RepeatPreviousEasy", 24, 51)


def test_a_cloned_policy_does_what_it_was_shown(recorded: Episodes, tmp_path: Path, capsys: Any) -> None:
    save_episodes(tmp_path / "episodes.npz", recorded)
    options = ["--memory-config", "d_model=16", "d_state=16", "n_layers=1", "--encoder", "16"]
    options += ["--actor-torso", "16", "--critic-torso", "16", "--num-envs", "4", "--num-steps", "52"]
    options += ["--learning-rate", "1e-2", "--epochs", "40", "-o", str(tmp_path / "policy.safetensors")]
    assert main(["clone", str(tmp_path / "episodes.npz"), "--env", "RepeatPreviousEasy", *options]) == 0
    told = capsys.readouterr().out
    assert told.count("epoch ") == 40
    policy = load_policy(tmp_path / "policy.safetensors")
    assert policy.env_id == "RepeatPreviousEasy"
    assert policy.training["trainer"] == "s5_adapters.purejax.clone"
    score = from_file(tmp_path / "policy.safetensors").evaluate(32, deterministic=True).mean
    assert score > 0.5  # a memoryless player gets about -0.5


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_200_episodes_teach_a_policy_and_ppo_goes_on_from_it(seed: int, tmp_path: Path) -> None:
    """Prints the return of the cloned policy, and the least of an update of PPO's after it."""
    save_episodes(tmp_path / "episodes.npz", best_play("RepeatPreviousEasy", 200, 51, seed=seed))
    path = tmp_path / "policy.safetensors"
    options = ["--num-envs", "8", "--num-steps", "51", "--learning-rate", "3e-3", "--epochs", "40"]
    options += ["--env", "RepeatPreviousEasy", "--seed", str(seed), "-o", str(path)]
    assert main(["clone", str(tmp_path / "episodes.npz"), *options]) == 0
    cloned = from_file(path).evaluate(200).mean
    config = PPOConfig(env_id="RepeatPreviousEasy", total_steps=300_000, learning_rate=3e-4)
    returns = Trainer(config, seed=seed, weights=str(path)).run().metrics["episode_return"]
    print(f"seed {seed}: {cloned:.3f}, then at least {np.nanmin(returns):.3f}")
    assert cloned >= 0.9
    assert np.nanmin(returns) >= 0.8


def test_episodes_come_back_as_they_were(recorded: Episodes, tmp_path: Path) -> None:
    save_episodes(tmp_path / "episodes.npz", recorded)
    again = load_episodes(tmp_path / "episodes.npz", build_problem(small_config()))
    for one, other in zip(again, recorded, strict=True):
        np.testing.assert_array_equal(one, other)
    returns = discounted_returns(recorded, 0.9).reshape(24, 51)
    rewards = recorded.rewards.reshape(24, 51)
    np.testing.assert_allclose(returns[:, -2], rewards[:, -2] + 0.9 * rewards[:, -1], rtol=1e-6)
    np.testing.assert_array_equal(returns[:, -1], rewards[:, -1])


def test_packing_keeps_episodes_whole_and_every_step_once() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 20, 30)
    bounds = np.append(0, np.cumsum(lengths))
    config = small_config(num_envs=4, num_steps=8)
    starts = np.isin(np.arange(bounds[-1]), bounds[:-1])
    data = Episodes(np.zeros((bounds[-1], 6), np.float32), np.zeros(bounds[-1], np.int32), starts)
    learner = _Learner(build_problem(config), config, data, None)
    windows = learner.windows(lengths)
    rows, counts = map(np.asarray, learner.pack(bounds, rng.permutation(30), windows))
    assert rows.shape == counts.shape == (windows, 8, 4)
    assert sorted(rows[counts]) == list(range(bounds[-1]))
    rows, counts = rows.reshape(-1, 4), counts.reshape(-1, 4)
    for column in range(4):
        inside = rows[counts[:, column], column]
        follows = np.diff(inside) == 1
        assert starts[inside[1:][~follows]].all()
        assert counts[: counts[:, column].sum(), column].all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": None}, "no array 'actions'"),
        ({"action": np.zeros(4)}, "array 'action', expected some of obs, "),
        ({"obs": np.zeros((4, 9))}, r"obs has shape \(4, 9\), expected \(4, "),
        ({"actions": np.full(4, 7)}, "actions of step 0 is 7, expected those of Discrete"),
        ({"actions": np.array([0, 1, 1.5, 2])}, r"actions of step 2 is 1\.5, expected those of Discrete"),
        ({"actions": np.full(4, 2**32)}, "actions of step 0 is 4294967296, expected those of Discrete"),
        ({"episode_starts": np.array(True)}, r"episode_starts has shape \(\), expected \(N,\)"),
        ({"episode_starts": np.zeros(0, bool)}, r"episode_starts has shape \(0,\), expected \(N,\)"),
        ({"episode_starts": np.array([1, 1, 2, 2])}, "episode_starts of step 2 is 2, expected 0 or 1"),
        ({"rewards": np.full(4, 1e300)}, "rewards holds float64 that are no finite numbers of 32 bits"),
        ({"episode_starts": np.zeros(4, bool)}, "episode_starts begins with False"),
        ({"rewards": np.full(4, np.nan)}, "rewards holds float64 that are no finite numbers"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    problem = build_problem(small_config())
    arrays = {
        "obs": np.zeros((4, *problem.obs_shape), np.float32),
        "actions": np.zeros(4, np.int32),
        "episode_starts": np.ones(4, bool),
    } | change
    path = tmp_path / "episodes.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ValueError, match=message):
        clone(RunConfig(small_config()), str(path))


@pytest.mark.parametrize(
    ("env_id", "actions", "masks", "message"),
    [
        ("Guarded", [0, 1], [[1, 0, 0, 1], [1, 0, 1, 1]], "actions of step 1 is 1, which its action_mask"),
        ("Guarded", [0, 1], [[1, 0, 0, 1], [0, 0, 0, 0]], None),
        (
            "GuardedSwitches",
            [[0, 1], [2, 1]],
            [[1, 0, 0, 0, 1], [0, 0, 1, 1, 0]],
            r"step 1 is \[2 1\], which",
        ),
        ("GuardedSwitches", [[0, 1], [2, 1]], [[1, 0, 0, 0, 1], [0, 0, 1, 0, 0]], None),
        (
            "Guarded",
            [0, 1],
            [[1, 0, 0, 1], [0.5, 1, 0, 0]],
            r"action_mask of step 1 is \[0\.5 .*, expected 0 or 1",
        ),
    ],
)
def test_what_a_mask_forbids_was_not_done(
    env_id: str, actions: Any, masks: Any, message: str | None, tmp_path: Path
) -> None:
    problem = build_problem(small_config(env_id=env_id))
    obs = np.zeros((2, *problem.obs_shape), np.float32)
    path = tmp_path / "episodes.npz"
    save_episodes(path, Episodes(obs, np.array(actions), np.ones(2, bool), None, np.array(masks)))
    if message is None:
        assert load_episodes(path, problem).action_mask.dtype == bool
        return
    with pytest.raises(ValueError, match=message):
        load_episodes(path, problem)


def test_what_is_no_file_of_arrays_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no")
    (tmp_path / "empty.npz").touch()
    np.save(tmp_path / "one.npy", np.zeros(3))
    np.savez_compressed(tmp_path / "flipped.npz", obs=np.arange(100.0))
    content = bytearray((tmp_path / "flipped.npz").read_bytes())
    content[60:70] = bytes(10)  # within the compressed entry
    (tmp_path / "flipped.npz").write_bytes(content)
    np.savez(tmp_path / "objects.npz", obs=np.array([{}, None]))
    for name in ("text.npz", "empty.npz", "one.npy", "flipped.npz", "nowhere.npz", "objects.npz"):
        told = r"(?!.*allow_pickle)[^\n]+"  # numpy's advice is to unpickle what cannot be read
        with pytest.raises(ValueError, match=rf"^\S*{name}: not a readable \.npz of arrays: {told}$"):
            clone(RunConfig(small_config()), str(tmp_path / name))
