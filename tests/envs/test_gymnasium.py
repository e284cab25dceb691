"""gymnasium's interface: its own checkers, its own SyncVectorEnv as the model, clumsy input."""

from __future__ import annotations

import importlib.util
import pickle
import subprocess
import sys
import warnings

import gymnasium
import gymnax
import jax
import numpy as np
import pytest
from gymnasium.error import NameNotFound, ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnax.wrappers.purerl import LogWrapper
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import s5_envs
from s5_envs import GymnaxEnv, GymnaxVectorEnv, PreviousAction
from s5_envs.gymnasium import gymnasium_name

pytestmark = pytest.mark.full_compilation

MODES = (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)
FLAG = np.array([0.0, 1.0], np.float32)  # PreviousAction's mark of a first observation

# Opinions of the checkers about spaces that are the reference's, not ours to change.
OPINIONS = (
    "A Box observation space (minimum|maximum) value is -?infinity",
    "For Box action spaces, we recommend using a symmetric and normalized space",
    "We recommend you to use a symmetric and normalized Box action space",
)


def make_vec(env_id: str, num_envs: int, **kwargs) -> GymnaxVectorEnv:
    return gymnasium.make_vec(
        f"s5_envs/{env_id}-v0", num_envs=num_envs, vectorization_mode="vector_entry_point", **kwargs
    )


def assert_same(a, b):
    """Equality of what reset and step return, infos and their masks included."""
    assert type(a) is type(b) or np.isscalar(a)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            assert_same(a[name], b[name])
    elif isinstance(a, tuple):
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, np.ndarray) and a.dtype == object:
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
    else:
        np.testing.assert_array_equal(a, b)


NEEDS_CONTROL = pytest.mark.skipif(
    importlib.util.find_spec("mujoco_playground") is None,
    reason="mujoco_playground is missing: pip install 's5-adapters[control]'",
)


@pytest.mark.parametrize(
    "env_id",
    [
        pytest.param(i, marks=NEEDS_CONTROL)
        if i == "MetaDMC-v0"
        else pytest.param(i, marks=[pytest.mark.slow] * i.endswith(("Medium", "Hard")))
        for i in s5_envs.registered_ids()
    ],
)
def test_passes_the_checkers_of_gymnasium_and_sb3(env_id):
    with warnings.catch_warnings():
        for opinion in OPINIONS:
            warnings.filterwarnings("ignore", f".*{opinion}")
        env = gymnasium.make(gymnasium_name(env_id))
        check_env(env.unwrapped)
        sb3_check_env(env.unwrapped)
    obs, _ = env.reset(seed=0)
    assert obs.dtype == np.float32
    assert obs in env.observation_space


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize(
    "env_id", ["MineSweeperEasy", "PositionOnlyCartPoleEasy", "PositionOnlyPendulumHard"]
)
def test_a_vector_environment_is_gymnasium_s_own_of_single_ones(env_id, mode):
    """Observations, rewards, flags, infos, masks, final_obs and final_info, through many episodes."""
    env, params = s5_envs.make(env_id)
    env, params = s5_envs.EpisodeStatistics(env), params.replace(max_steps_in_episode=23)
    ours = GymnaxVectorEnv(env, params, 4, mode)
    model = gymnasium.vector.SyncVectorEnv([lambda: GymnaxEnv(env, params)] * 4, autoreset_mode=mode)
    assert ours.metadata["autoreset_mode"] is mode
    for space in ("observation_space", "action_space", "single_observation_space", "single_action_space"):
        assert getattr(ours, space) == getattr(model, space)
    ours.action_space.seed(1)
    assert_same(ours.reset(seed=7), model.reset(seed=7))
    ends = 0
    for _ in range(60):
        actions = ours.action_space.sample()
        ours_out, model_out = ours.step(actions), model.step(actions)
        obs, reward, terminated, truncated, info = ours_out
        assert (reward.dtype, terminated.dtype, truncated.dtype) == (np.float32, bool, bool)
        assert all(x.flags.writeable for x in ours_out[:4])
        np.testing.assert_array_equal(reward, model_out[1])
        assert_same((obs, terminated, truncated), (model_out[0], *model_out[2:4]))
        assert_same(info, model_out[4])
        done = terminated | truncated
        ends += done.sum()
        if mode is AutoresetMode.DISABLED and done.any():
            # A mapping each, as gymnasium takes the mask out of it.
            assert_same(*(envs.reset(options={"reset_mask": done.copy()}) for envs in (ours, model)))
    assert ends >= 8
    if mode is AutoresetMode.NEXT_STEP:
        # Asking for new episodes in the middle of them carries on from the same randomness.
        assert_same(ours.reset()[0], model.reset()[0])


def _first_observation(env: PreviousAction, obs: np.ndarray) -> bool:
    """Whether flag and previous action are those of an episode's beginning."""
    parts = env.action_space(env.default_params).nvec
    null = np.concatenate([np.eye(n, dtype=np.float32)[0] for n in parts])
    return bool((obs[-2:] == FLAG).all() and (obs[-2 - len(null) : -2] == null).all())


@pytest.mark.parametrize("mode", MODES)
def test_first_step_flag_and_null_action_return_after_every_reset(mode):
    num_envs, steps = 8, 80
    envs = make_vec("MineSweeperEasy", num_envs, autoreset_mode=mode)
    inner, _ = s5_envs.make("MineSweeperEasy")
    assert isinstance(inner, PreviousAction)
    obs, _ = envs.reset(seed=0)
    assert all(_first_observation(inner, o) for o in obs)
    rng, ended, returns = np.random.default_rng(0), np.zeros(num_envs, bool), 0
    for _ in range(steps):
        # Never the null action (0, 0), so that it cannot be mistaken for it.
        actions = rng.integers(1, 4, (num_envs, 2))
        obs, _, terminated, truncated, info = envs.step(actions)
        done = terminated | truncated
        begun = ended if mode is AutoresetMode.NEXT_STEP else done
        assert [_first_observation(inner, o) for o in obs] == begun.tolist()
        returns += begun.sum()
        final = obs if mode is AutoresetMode.NEXT_STEP else info.get("final_obs", [])
        for i in np.flatnonzero(done):
            assert (final[i][-2:] == FLAG[::-1]).all()
            last = np.concatenate([np.eye(4)[a] for a in actions[i]])
            assert (final[i][-10:-2] == last).all()
        ended = done
    assert returns >= 3 * num_envs


def test_waiting_environments_ignore_their_action_and_get_no_reward():
    envs = make_vec("MineSweeperEasy", 4)
    envs.reset(seed=3)
    rng, ended = np.random.default_rng(1), np.zeros(4, bool)
    for _ in range(40):
        _, reward, terminated, truncated, _ = envs.step(rng.integers(0, 4, (4, 2)))
        assert not (ended & (terminated | truncated)).any()
        assert (reward[ended] == 0).all()
        assert (reward[~ended] != 0).all()
        ended = terminated | truncated


def test_disabled_leaves_resets_to_the_caller():
    envs = make_vec("MineSweeperEasy", 4, autoreset_mode="DISABLED")
    assert envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    first, _ = envs.reset(seed=0)
    rng, done = np.random.default_rng(0), np.zeros(4, bool)
    while not done.any():
        obs, _, terminated, truncated, info = envs.step(rng.integers(0, 4, (4, 2)))
        done = terminated | truncated
    assert "final_obs" not in info
    assert not done.all()
    with pytest.raises(ResetNeeded, match="reset_mask"):
        envs.step(rng.integers(0, 4, (4, 2)))
    again, _ = envs.reset(options={"reset_mask": done})
    np.testing.assert_array_equal(again[~done], obs[~done])
    assert (again[done][:, -2:] == FLAG).all()
    envs.step(rng.integers(0, 4, (4, 2)))
    reseeded, _ = envs.reset(seed=0, options={"reset_mask": np.array([True, False, False, False])})
    np.testing.assert_array_equal(reseeded[0], first[0])


def test_seeds_decide_everything():
    def play(envs, seed):
        rng = np.random.default_rng(0)
        out = [envs.reset(seed=seed)[0]]
        for _ in range(30):
            obs, reward, *_ = envs.step(rng.integers(0, 4, envs.num_envs))
            out += [obs, reward]
        return np.concatenate([np.ravel(x) for x in out])

    envs = make_vec("RepeatPreviousEasy", 16)
    once = play(envs, 11)
    np.testing.assert_array_equal(play(envs, 11), once)
    np.testing.assert_array_equal(play(make_vec("RepeatPreviousEasy", 16), 11), once)
    np.testing.assert_array_equal(play(envs, list(range(11, 27))), once)
    assert (play(envs, 2**63) != once).any()
    assert (play(envs, 2**32 + 11) != once).any()
    assert (play(envs, None) != play(envs, None)).any()


def test_without_a_seed_environments_differ():
    a, b = (make_vec("RepeatFirstEasy", 64).reset()[0] for _ in range(2))
    assert (a != b).any()
    assert len({bytes(o) for o in a}) == 4


def test_one_step_compiles_once():
    envs = make_vec("RepeatFirstMedium", 3)
    envs.reset(seed=0)
    envs.step(np.zeros(3, int))
    from s5_envs import lanes

    compiled = lanes._step._cache_size()
    for seed in (1, None):
        envs.reset(seed=seed)
        for _ in range(3):
            envs.step(np.ones(3, np.int64))
    twin = make_vec("RepeatFirstMedium", 3)
    twin.reset(seed=5)
    twin.step([1, 2, 3])
    assert lanes._step._cache_size() == compiled


@pytest.mark.parametrize(
    ("env_id", "action"),
    [("CartPole-v1", 1), ("Pendulum-v1", [0.5]), ("MountainCar-v0", 2), ("Catch-bsuite", 1)],
)
def test_any_gymnax_environment(env_id, action):
    env, params = gymnax.make(env_id)
    single, envs = (
        GymnaxEnv(env, params),
        GymnaxVectorEnv(env, params, num_envs=3, autoreset_mode="SAME_STEP"),
    )
    assert single.metadata["render_modes"] == []
    obs, _ = single.reset(seed=4)
    batch, _ = envs.reset(seed=4)
    np.testing.assert_array_equal(batch[0], obs)
    assert obs in single.observation_space
    for _ in range(5):
        obs, reward, *_ = single.step(action)
        batch, rewards, *_ = envs.step([action] * 3)
        np.testing.assert_allclose(batch[0], obs, rtol=1e-6)
        assert rewards[0] == pytest.approx(reward)
    with pytest.raises(ValueError, match="unknown render_mode 'ansi'"):
        GymnaxEnv(env, params, render_mode="ansi")


def test_gymnax_s_own_wrappers_and_infos():
    env, params = gymnax.make("CartPole-v1")
    envs = GymnaxVectorEnv(LogWrapper(env), params, 2, "SAME_STEP", max_episode_steps=3)
    envs.reset(seed=0)
    for t in range(7):
        _, _, _, truncated, info = envs.step([0, 1])
        if (t + 1) % 3:
            assert info["_returned_episode_lengths"].all()
        else:
            assert truncated.all()
            assert not {"returned_episode_lengths", "_returned_episode_lengths"} & info.keys()
            assert info["_final_info"].all()
            assert (info["final_info"]["returned_episode_lengths"] == 3).all()


def test_importing_the_package_alone_makes_the_ids_known():
    code = (
        "import sys, gymnasium, s5_envs\n"
        "assert not {'torch', 'ray', 'stable_baselines3', 's5_envs.rendering'} & set(sys.modules)\n"
        "names = {name for name in gymnasium.registry if name.startswith('s5_envs/')}\n"
        "assert names == {s5_envs.gymnasium.gymnasium_name(i) for i in s5_envs.registered_ids()}, names"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


def test_rl_zoo_s_way_of_naming_the_module():
    env = gymnasium.make("s5_envs.gymnasium:s5_envs/RepeatFirstEasy-v0")
    assert env.spec.id == "s5_envs/RepeatFirstEasy-v0"


def test_specs_survive_json_and_pickle():
    spec = gymnasium.make("s5_envs/RepeatFirstEasy-v0", num_decks=2).spec
    assert gymnasium.make(type(spec).from_json(spec.to_json())).unwrapped._lanes.env.num_decks == 2
    envs = make_vec("RepeatFirstEasy", 2, autoreset_mode="SAME_STEP")
    assert pickle.loads(pickle.dumps(envs.spec)).kwargs["autoreset_mode"] == "SAME_STEP"


def test_time_limits():
    envs = make_vec("RepeatPreviousEasy", 2, max_episode_steps=3)
    envs.reset(seed=0)
    for t in range(1, 4):
        _, _, terminated, truncated, _ = envs.step([0, 0])
        assert (truncated == (t == 3)).all()
        assert not terminated.any()


def test_large_actions_of_a_box_are_clipped_by_the_environment():
    env = gymnasium.make("s5_envs/PositionOnlyPendulumEasy-v0").unwrapped
    results = []
    for torque in (2.0, 50.0):
        env.reset(seed=0)
        results.append(env.step([torque])[:2])
    assert_same(*results)


CLUMSY = [
    ("RepeatFirstEasy", 4, r"RepeatFirst: expected an action of Discrete\(4\), got 4"),
    ("RepeatFirstEasy", -1, r"got -1"),
    ("RepeatFirstEasy", 1.0, r"actions must be integers, got float64 1.0"),
    ("RepeatFirstEasy", np.nan, r"actions must be integers, got float64 nan"),
    ("RepeatFirstEasy", [1], r"expected an action of shape \(\), got \(1,\)"),
    ("RepeatFirstEasy", None, r"actions must be integers, got object None"),
    ("MineSweeperEasy", [0, 4], r"MineSweeper: expected an action of MultiDiscrete\(\[4 4\]\), got \[0, 4\]"),
    ("MineSweeperEasy", 3, r"expected an action of shape \(2,\), got \(\)"),
    ("PositionOnlyPendulumEasy", [np.nan], r"actions must be finite numbers, got \[nan\]"),
    ("PositionOnlyPendulumEasy", ["left"], r"actions must be finite numbers, got \['left'\]"),
    ("PositionOnlyPendulumEasy", 0.0, r"expected an action of shape \(1,\), got \(\)"),
]


@pytest.mark.parametrize(("env_id", "action", "message"), CLUMSY)
def test_wrong_actions_are_named(env_id, action, message):
    env = gymnasium.make(f"s5_envs/{env_id}-v0").unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(action)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([0, 9, 1], r"expected an action of Discrete\(4\), got 9 in environment 1"),
        ([0, 1], r"expected actions of shape \(3,\), got \(2,\)"),
        ([[0], [1], [2]], r"expected actions of shape \(3,\), got \(3, 1\)"),
        ([0, [1, 2], 3], r"ragged"),
    ],
)
def test_wrong_batches_of_actions_are_named(actions, message):
    envs = make_vec("RepeatFirstEasy", 3)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        envs.step(actions)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"autoreset_mode": "LATER"},
            "unknown autoreset_mode 'LATER'; expected one of NEXT_STEP, SAME_STEP, DISABLED",
        ),
        ({"num_envs": 0}, "num_envs must be a positive integer, got 0"),
        ({"num_envs": 2.5}, "num_envs must be a positive integer, got 2.5"),
        ({"render_mode": "human"}, "unknown render_mode 'human'"),
        ({"max_episode_steps": 0}, "max_episode_steps must be a positive integer, got 0"),
        ({"k": 3}, "has no argument 'k'; it takes: num_decks"),
    ],
)
def test_wrong_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        GymnaxVectorEnv("RepeatFirstEasy", **kwargs)


def test_wrong_ids_are_named():
    with pytest.raises(NameNotFound, match="RepeatPreviousHard"):
        gymnasium.make("s5_envs/RepeatPreviusHard-v0")
    with pytest.raises(ValueError, match="did you mean RepeatPreviousHard"):
        GymnaxEnv("RepeatPreviusHard")
    env, params = s5_envs.make("RepeatFirstEasy")
    with pytest.raises(ValueError, match="RepeatFirst is built already and takes no argument 'num_decks'"):
        GymnaxEnv(env, params, num_decks=2)


def test_steps_need_a_reset_first_and_after_an_end():
    env, params = s5_envs.make("RepeatFirstEasy")
    params = params.replace(max_steps_in_episode=1)
    single = GymnaxEnv(env, params, render_mode="ansi")
    envs = GymnaxVectorEnv(env, params, render_mode="ansi")
    for made, actions in ((single, 0), (envs, [0])):
        with pytest.raises(ResetNeeded, match=r"RepeatFirst: call reset\(\) first"):
            made.step(actions)
        with pytest.raises(ResetNeeded, match=r"RepeatFirst: call reset\(\) first"):
            made.render()
    single.reset(seed=0)
    assert single.step(0)[3]
    with pytest.raises(ResetNeeded, match="the episode is over"):
        single.step(0)


@pytest.mark.parametrize("seed", [-1, 1.5, "7", 2**64])
def test_wrong_seeds_are_named(seed):
    env = GymnaxEnv("RepeatFirstEasy")
    with pytest.raises((ValueError, gymnasium.error.Error), match=r"[Ss]eed"):
        env.reset(seed=seed)


def test_wrong_batches_of_seeds_and_masks_are_named():
    envs = make_vec("RepeatFirstEasy", 3)
    with pytest.raises(ResetNeeded, match="the first reset"):
        envs.reset(options={"reset_mask": np.array([True, False, False])})
    with pytest.raises(ValueError, match="expected 3 seeds, got 2"):
        envs.reset(seed=[1, 2])
    for mask in ([True, False], [0, 1, 0], [False] * 3):
        with pytest.raises(ValueError, match=r"reset_mask must be \(3,\) bool with a True in it"):
            envs.reset(options={"reset_mask": np.array(mask)})


def test_observations_are_the_caller_s_own():
    envs = make_vec("RepeatFirstEasy", 2)
    obs, _ = envs.reset(seed=0)
    kept = obs.copy()
    later, *_ = envs.step([0, 0])
    later[:] = 9.0
    np.testing.assert_array_equal(obs, kept)
    assert envs.step([0, 0])[0].max() == 1.0


def test_keys_of_seeds_are_distinct():
    from s5_envs.lanes import _keys_of

    seeds = np.array([0, 1, 2**32, 2**32 + 1, 2**63, 2**64 - 1], np.uint64)
    assert len(np.unique(jax.random.key_data(_keys_of(seeds)), axis=0)) == len(seeds)
