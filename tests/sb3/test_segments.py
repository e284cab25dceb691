"""The segment buffer: every step once, one shape, states at segment starts, masked rows where nothing
divides.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.env_util import make_vec_env

from s5_adapters.sb3 import S5RecurrentPPO
from s5_adapters.sb3.segments import (
    SHORTEST,
    SegmentDictRolloutBuffer,
    SegmentRolloutBuffer,
    minibatches,
    plan_segments,
    rows_per_batch,
    segment_starts,
)
from s5_adapters.torch_bridge import Buckets

LAYERS, WIDTH = 2, 3


def filled(n_steps: int, n_envs: int, length: int, *, as_dict: bool = False) -> SegmentRolloutBuffer:
    """Numbers that say which step of which environment they belong to: 1000 * env + step."""
    box = spaces.Box(-1, 1e6, (2,))
    space = spaces.Dict({"a": box, "b": spaces.Box(-1, 1e6, (1,))}) if as_dict else box
    buffer = (SegmentDictRolloutBuffer if as_dict else SegmentRolloutBuffer)(
        n_steps,
        space,
        spaces.Discrete(5),
        (n_steps, LAYERS, n_envs, WIDTH),
        n_envs=n_envs,
        segment_length=length,
        device="cpu",
    )
    for step in range(n_steps):
        tag = 1000.0 * np.arange(n_envs) + step
        obs = {"a": np.stack([tag, tag], 1), "b": tag[:, None]} if as_dict else np.stack([tag, tag], 1)
        state = th.as_tensor(tag, dtype=th.float32)[None, :, None].expand(LAYERS, n_envs, WIDTH)
        states = RNNStates((state, state + 0.1), (state + 0.2, state + 0.3))
        buffer.add(
            obs,
            np.full((n_envs, 1), step % 5),
            tag,
            np.full(n_envs, step % 7 == 0),
            th.as_tensor(tag)[:, None],
            th.as_tensor(tag),
            lstm_states=states,
        )
    buffer.compute_returns_and_advantage(th.zeros(n_envs, 1), np.zeros(n_envs))
    return buffer


@settings(max_examples=40, deadline=None)
@given(
    n_steps=st.integers(1, 40),
    n_envs=st.integers(1, 5),
    batch_size=st.integers(1, 90),
    length=st.integers(1, 40),
)
def test_every_step_appears_exactly_once_in_order_and_in_one_shape(
    n_steps: int, n_envs: int, batch_size: int, length: int
) -> None:
    length = min(length, n_steps)
    buffer = filled(n_steps, n_envs, length)
    seen, shapes = [], set()
    for batch in buffer.get(batch_size):
        mask = batch.mask > 0.5
        tags = batch.observations[:, 0].reshape(-1, length)
        states = batch.lstm_states
        assert states.pi[0].shape == (LAYERS, len(tags), WIDTH)
        shapes.add(tuple(tags.shape))
        # the state of a segment is the one before its first step; within it, steps follow each other
        np.testing.assert_allclose(states.pi[0][1, :, 2], tags[:, 0])
        np.testing.assert_allclose(states.vf[1][0, :, 0], tags[:, 0] + 0.3, rtol=1e-6)
        inside = mask.reshape(-1, length)
        assert (np.diff(tags.numpy(), axis=1)[inside[:, 1:].numpy()] == 1).all()
        np.testing.assert_allclose(batch.old_values, batch.observations[:, 1])
        np.testing.assert_array_equal(batch.episode_starts > 0.5, (batch.observations[:, 0] % 1000) % 7 == 0)
        np.testing.assert_array_equal(batch.actions.flatten(), (batch.observations[:, 0] % 1000) % 5)
        seen.extend(batch.observations[mask, 0].tolist())
    assert len(shapes) == 1
    assert sorted(seen) == sorted(1000.0 * env + step for env in range(n_envs) for step in range(n_steps))


def test_without_a_batch_size_everything_comes_at_once_and_again_at_the_next_call() -> None:
    buffer = filled(10, 3, 4)
    for _ in range(2):
        (batch,) = buffer.get()
        assert batch.mask.sum() == 30
        assert len(batch.mask) == 3 * 3 * 4


def test_minibatches_are_shuffled() -> None:
    buffer = filled(32, 4, 8)
    np.random.seed(0)
    first, second = ([b.observations[0, 0].item() for b in buffer.get(8)] for _ in range(2))
    assert first != second
    assert sorted(first) == sorted(second)


def test_dictionary_observations_keep_their_keys_together() -> None:
    for batch in filled(9, 2, 4, as_dict=True).get(8):
        np.testing.assert_array_equal(batch.observations["a"][:, :1], batch.observations["b"])
        assert batch.observations["a"].shape == (8, 2)


def test_states_are_stored_at_segment_starts_only() -> None:
    assert filled(20, 3, 6).hidden_states_pi.shape == (4, LAYERS, 3, WIDTH)


@pytest.mark.parametrize("length", [0, 11])
def test_a_segment_length_that_cannot_be_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"segment_length is {length}, expected 1 to 10"):
        SegmentRolloutBuffer(
            10, spaces.Box(0, 1, (1,)), spaces.Discrete(2), (10, 1, 1, 1), segment_length=length
        )


@pytest.mark.parametrize(
    ("n_steps", "batch_size", "length"),
    [(128, 128, 128), (128, 256, 128), (32, 256, 32), (2048, 64, 64), (100, 50, 50), (1, 64, 1), (5, 3, 5)],
)
def test_plans_that_divide_are_exact(n_steps: int, batch_size: int, length: int) -> None:
    assert plan_segments(n_steps, batch_size) == length


@given(n_steps=st.integers(1, 3000), batch_size=st.integers(1, 5000))
@example(n_steps=9, batch_size=1)
@example(n_steps=15, batch_size=14)
def test_plans_are_never_degenerate_and_near_the_batch_size(n_steps: int, batch_size: int) -> None:
    length = plan_segments(n_steps, batch_size)
    assert min(n_steps, SHORTEST) <= length <= n_steps
    waste = 1 - n_steps / (length * -(-n_steps // length))
    assert waste <= 0.5
    if n_steps >= 32 and batch_size >= 32:
        assert waste <= 0.25
        assert abs(rows_per_batch(length, batch_size) / batch_size - 1) <= 0.34


@pytest.mark.parametrize(("n_steps", "n_envs", "batch_size"), [(128, 8, 256), (32, 8, 256), (1024, 4, 64)])
def test_buckets_stay_few_over_the_stock_buffers_shapes(n_steps: int, n_envs: int, batch_size: int) -> None:
    """Minibatches as sb3-contrib cuts them, while episodes grow from 10 steps to 500."""
    rng = np.random.default_rng(0)
    buckets, raw = Buckets(4.0), set()
    total = n_steps * n_envs
    for mean in np.geomspace(10, 500, 40):
        starts = rng.random(total) < 1 / mean
        starts[::n_steps] = True
        rotated = np.roll(starts, -rng.integers(total))
        for first in range(0, total, batch_size):
            cut = rotated[first : first + batch_size].copy()
            cut[0] = True
            lengths = np.diff([*np.flatnonzero(cut), len(cut)])
            shape = len(lengths), int(lengths.max())
            rows, steps = buckets.fit(*shape)
            assert rows >= shape[0]
            assert steps >= shape[1]
            assert rows * steps <= 4 * shape[0] * shape[1]
            raw.add(shape)
    assert len(raw) > 2 * len(buckets.shapes)
    assert len(buckets.shapes) <= 8


def test_buckets_known_and_first_shapes_are_exact() -> None:
    buckets = Buckets(4.0, exact_first=True)
    assert buckets.fit(5) == (5,)
    assert buckets.fit(3) == (5,)
    assert buckets.fit(1, max_waste=float("inf")) == (5,)
    assert buckets.fit(1) == (1,)
    assert buckets.fit(9) == (16,)
    buckets = Buckets(4.0)
    buckets.add(6, 50)
    assert buckets.fit(6, 50) == (6, 50)
    assert buckets.fit(3, 50) == (6, 50)


SIZES = {"n_steps": st.integers(2, 2048), "n_envs": st.integers(1, 16), "batch_size": st.integers(1, 512)}


def real_rows(n_steps: int, n_envs: int, length: int, batch_size: int) -> list[int]:
    """The fewest rows with mask 1 that each minibatch can have, however segments are shuffled."""
    number, per_batch = minibatches(n_steps, n_envs, length, batch_size)
    starts = segment_starts(n_steps, length)
    lengths = np.diff(starts)
    assert lengths.sum() == n_steps
    assert lengths.max() <= length
    sizes = [len(part) for part in np.array_split(np.arange(len(lengths) * n_envs), number)]
    assert max(sizes) == per_batch
    shortest = np.sort(np.tile(lengths, n_envs))
    return [int(shortest[:size].sum()) for size in sizes]


@given(**SIZES)
@example(n_steps=100, n_envs=1, batch_size=8)
@example(n_steps=2, n_envs=1, batch_size=1)
@example(n_steps=17, n_envs=3, batch_size=16)
def test_no_minibatch_of_a_plan_has_a_single_row(n_steps: int, n_envs: int, batch_size: int) -> None:
    length = plan_segments(n_steps, min(batch_size, n_steps * n_envs))
    assert min(real_rows(n_steps, n_envs, length, batch_size)) >= 2


def test_nor_with_any_length_that_a_user_gives() -> None:
    for n_steps in range(1, 14):
        for n_envs in range(1, 5):
            for length in range(1, n_steps + 1):
                for batch_size in range(1, n_steps * n_envs + 1):
                    assert n_steps * n_envs == 1 or min(real_rows(n_steps, n_envs, length, batch_size)) >= 2


@settings(max_examples=30)
@given(n_steps=st.integers(2, 40), n_envs=st.integers(1, 4), batch_size=st.integers(1, 40), data=st.data())
def test_the_buffer_holds_to_the_plan(
    n_steps: int, n_envs: int, batch_size: int, data: st.DataObject
) -> None:
    length = data.draw(st.integers(1, n_steps))
    masks = [batch.mask for batch in filled(n_steps, n_envs, length).get(batch_size)]
    number, per_batch = minibatches(n_steps, n_envs, length, batch_size)
    assert [len(mask) for mask in masks] == [per_batch * length] * number
    assert min(int(mask.sum()) for mask in masks) >= 2


def configurations(count: int) -> list[tuple[int, int, int, int]]:
    """Sizes whose shapes differ, but n_steps 100 in batches of 8 before all."""
    rng = np.random.default_rng(0)
    drawn = [
        (int(rng.integers(2, 80)), int(rng.integers(1, 4)), int(rng.integers(2, 40))) for _ in range(count)
    ]
    return [(i, *sizes) for i, sizes in enumerate([(100, 1, 8), (9, 1, 8), *drawn][:count])]


@pytest.mark.parametrize(
    ("seed", "n_steps", "n_envs", "batch_size"),
    [
        pytest.param(*sizes, marks=[pytest.mark.slow] if i >= 6 else [], id="-".join(map(str, sizes[1:])))
        for i, sizes in enumerate(configurations(200))
    ],
)
def test_two_updates_leave_every_number_finite(seed: int, n_steps: int, n_envs: int, batch_size: int) -> None:
    env = make_vec_env("CartPole-v1", n_envs=n_envs, seed=seed)
    kwargs = {"d_model": 4, "n_layers": 1, "net_arch": []}
    model = S5RecurrentPPO(
        "S5Policy", env, n_steps=n_steps, batch_size=batch_size, n_epochs=2, seed=seed, policy_kwargs=kwargs
    )
    model.learn(2 * n_steps * n_envs)
    assert all(bool(parameter.isfinite().all()) for parameter in model.policy.parameters())
    assert np.isfinite(model.logger.name_to_value.get("train/loss", 0.0))


def test_a_rollout_of_one_row_cannot_be_normalised() -> None:
    with pytest.raises(ValueError, match=r"n_steps \* n_envs is 1"):
        S5RecurrentPPO("S5Policy", "CartPole-v1", n_steps=1, batch_size=1)
