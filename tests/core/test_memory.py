"""The contract that every registered memory keeps."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5_adapters.core import Memory, make_memory, memory_names, register_memory
from s5_adapters.core.memories import memory as registry
from s5_adapters.core.memories.stack import Stack
from tests.marks import slow

LENGTH, BATCH, WIDTH = 24, 2, 5
TOLERANCE = {"rtol": 2e-5, "atol": 2e-5}
# A context that holds every sequence below with what came before it: beyond it attention forgets.
EXTRA: dict[str, dict[str, Any]] = {
    "s5": {"d_state": 8, "dt_min": 0.01},
    "lru": {"d_state": 8},
    "mamba": {"d_state": 4},
    "attention": {"n_heads": 2, "context": 40},
}

every_memory = pytest.mark.parametrize("name", memory_names())


def small(name: str, **changes: Any) -> Memory:
    return make_memory(name, **{"d_model": 8, "n_layers": 2, **EXTRA.get(name, {}), **changes})


def carries_nothing(name: str) -> bool:
    return not jax.tree.leaves(small(name).initial_state(1))


recurrent = pytest.mark.parametrize("name", [name for name in memory_names() if not carries_nothing(name)])


@functools.cache
def params_of(memory: Memory, width: int = WIDTH) -> Any:
    return jax.jit(memory.init, static_argnums=1)(jax.random.key(0), width)


@functools.partial(jax.jit, static_argnums=0)
def run(memory: Memory, params: Any, state: Any, x: Any, starts: Any) -> Any:
    return memory.apply(params, state, x, starts)


def inputs(length: int = LENGTH, batch: int = BATCH, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(length, batch, WIDTH)).astype(np.float32)


def no_starts(length: int = LENGTH, batch: int = BATCH) -> np.ndarray:
    return np.zeros((length, batch), bool)


def warm_state(memory: Memory, batch: int = BATCH, seed: int = 1) -> Any:
    """A state that the memory could have reached: the one after a few inputs."""
    x = inputs(8, batch, seed)
    return run(memory, params_of(memory), memory.initial_state(batch), x, no_starts(8, batch))[0]


def assert_close(ours: Any, theirs: Any, context: str = "") -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, **TOLERANCE, err_msg=context)


def episodes(starts: np.ndarray) -> Iterator[tuple[slice, bool]]:
    """The pieces of one column: (steps, whether the piece begins with a start)."""
    bounds = sorted({0, *np.flatnonzero(starts).tolist(), len(starts)})
    for begin, end in itertools.pairwise(bounds):
        yield slice(begin, end), bool(starts[begin])


@every_memory
def test_packed_with_resets_equals_episodes_one_by_one(name: str) -> None:
    memory = small(name)
    params, x, carried = params_of(memory), inputs(), warm_state(memory)
    starts = no_starts()
    starts[[0, 8, 16], 0] = True  # starts at once: nothing may come over from the carried state
    starts[[8], 1] = True  # goes on with an episode that began before
    state, y = run(memory, params, carried, x, starts)
    for column in range(BATCH):
        own = slice(column, column + 1)
        for steps, is_start in episodes(starts[:, column]):
            begin = (
                memory.initial_state(1) if is_start else jax.tree.map(lambda leaf, o=own: leaf[o], carried)
            )
            piece = x[steps, own]
            final, alone = run(memory, params, begin, piece, no_starts(len(piece), 1))
            np.testing.assert_allclose(y[steps, own], alone, **TOLERANCE, err_msg=f"{column} {steps}")
        following = inputs(4, 1, seed=3)
        ours = run(
            memory, params, jax.tree.map(lambda leaf, o=own: leaf[o], state), following, no_starts(4, 1)
        )
        assert_close(ours[1], run(memory, params, final, following, no_starts(4, 1))[1], "what comes after")


@every_memory
def test_steps_equal_the_sequence(name: str) -> None:
    memory = small(name)
    params, x, state = params_of(memory), inputs(12), warm_state(memory)
    starts = no_starts(12)
    starts[[0, 5], 0] = starts[[9, 10], 1] = True
    final, y = run(memory, params, state, x, starts)
    prepared, step = jax.jit(memory.prepare)(params), jax.jit(memory.step)
    for t in range(12):
        state, y_t = step(prepared, state, x[t], starts[t])
        np.testing.assert_allclose(y_t, y[t], **TOLERANCE, err_msg=f"step {t}")
    following, none = inputs(3, seed=4), no_starts(3)
    after_steps, after_sequence = (run(memory, params, s, following, none)[1] for s in (state, final))
    np.testing.assert_allclose(after_steps, after_sequence, **TOLERANCE)


@every_memory
@pytest.mark.parametrize("cut", [10, *slow(1)])
def test_a_split_sequence_equals_the_whole(name: str, cut: int) -> None:
    memory = small(name)
    params, x, starts = params_of(memory), inputs(), no_starts()
    starts[cut, 0] = starts[5, 1] = True
    _, whole = run(memory, params, memory.initial_state(BATCH), x, starts)
    state, head = run(memory, params, memory.initial_state(BATCH), x[:cut], starts[:cut])
    _, tail = run(memory, params, state, x[cut:], starts[cut:])
    np.testing.assert_allclose(np.concatenate([head, tail]), whole, **TOLERANCE)


@recurrent
def test_memory_matters(name: str) -> None:
    # Without this, a memory that carries nothing at all would pass most of this file.
    memory = small(name)
    params, x = params_of(memory), inputs()
    other = x.copy()
    other[0] += 1
    first, second = (run(memory, params, memory.initial_state(BATCH), u, no_starts())[1] for u in (x, other))
    assert np.abs(first[1:] - second[1:]).max() > 1e-4


@every_memory
def test_the_future_does_not_matter(name: str) -> None:
    memory = small(name)
    params, x = params_of(memory), inputs()
    other = x.copy()
    other[13:] += 1
    first, second = (run(memory, params, memory.initial_state(BATCH), u, no_starts())[1] for u in (x, other))
    np.testing.assert_array_equal(first[:13], second[:13])


@every_memory
def test_elements_of_a_batch_do_not_mix(name: str) -> None:
    memory = small(name)
    params, x = params_of(memory), inputs()
    other = x.copy()
    other[:, 1] += 1
    first, second = (run(memory, params, memory.initial_state(BATCH), u, no_starts())[1] for u in (x, other))
    np.testing.assert_array_equal(first[:, 0], second[:, 0])
    assert np.abs(first[:, 1] - second[:, 1]).max() > 1e-4


@recurrent
def test_the_initial_states_gradient_stops_at_the_first_reset(name: str) -> None:
    memory = small(name)
    params, x, state, starts = params_of(memory), inputs(), warm_state(memory), no_starts()
    starts[9, 0] = True

    def loss(state: Any, weights: Any) -> Any:
        return jnp.sum(memory.apply(params, state, x, starts)[1] * weights)

    gradient = jax.jit(jax.grad(loss))
    weights = np.random.default_rng(5).normal(size=(LENGTH, BATCH, 1)).astype(np.float32)
    before, after = (
        weights * np.reshape(when, (-1, 1, 1)) for when in (np.arange(LENGTH) < 9, np.arange(LENGTH) >= 9)
    )
    total = [np.zeros(BATCH), np.zeros(BATCH)]
    for i, part in enumerate((before, after)):
        for leaf in jax.tree.leaves(gradient(state, part)):
            assert np.isfinite(leaf).all()
            total[i] += np.abs(leaf).reshape(BATCH, -1).sum(axis=1)
    assert (total[0] > 0).all()
    assert total[1][0] == 0, "the reset must stop the gradient"
    assert total[1][1] > 0, "without a reset it must not"


@every_memory
def test_a_nan_in_a_finished_episode_never_reaches_the_next(name: str) -> None:
    memory = small(name)
    params, x, starts = params_of(memory), inputs(), no_starts()
    starts[12] = True
    clean_state, clean = run(memory, params, memory.initial_state(BATCH), x, starts)
    dirty = x.copy()
    dirty[7, 0] = np.nan
    state, y = run(memory, params, memory.initial_state(BATCH), dirty, starts)
    assert np.isnan(y[7, 0]).any()
    np.testing.assert_array_equal(y[12:], clean[12:])
    np.testing.assert_array_equal(y[:, 1], clean[:, 1])
    following = inputs(3, seed=6)
    after = [run(memory, params, s, following, no_starts(3))[1] for s in (state, clean_state)]
    np.testing.assert_array_equal(*after)

    def later(x: Any) -> Any:
        return jnp.sum(memory.apply(params, memory.initial_state(BATCH), x, starts)[1][12:])

    gradient = jax.jit(jax.grad(later))(dirty)
    assert np.isfinite(gradient[12:]).all()
    assert np.any(gradient[12:])


@every_memory
def test_a_nan_state_is_dropped_by_a_start(name: str) -> None:
    memory = small(name)
    params, x, starts = params_of(memory), inputs(), no_starts()
    starts[0] = True
    nan = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), memory.initial_state(BATCH))
    expected = run(memory, params, memory.initial_state(BATCH), x, starts)[1]
    np.testing.assert_array_equal(run(memory, params, nan, x, starts)[1], expected)
    _, y = jax.jit(memory.step)(jax.jit(memory.prepare)(params), nan, x[0], starts[0])
    np.testing.assert_allclose(y, expected[0], **TOLERANCE)


@every_memory
def test_gradients_equal_float64_differences(name: str) -> None:
    memory = small(name)
    rng = np.random.default_rng(2)
    # Away from where they start: a zero bias or a scale of one may hide what is wrong.
    params = jax.tree.map(
        lambda leaf: np.asarray(leaf + 0.05 * rng.normal(size=leaf.shape), np.float32), params_of(memory)
    )
    starts = no_starts()
    starts[[3, 11], 0] = starts[7, 1] = True
    weights = rng.normal(size=(LENGTH, BATCH, memory.d_model)).astype(np.float32)
    paths, tree = jax.tree_util.tree_flatten_with_path((params, warm_state(memory), inputs()))
    leaves = [np.asarray(leaf) for _, leaf in paths]

    def loss(leaves: list[Any]) -> Any:
        return jnp.sum(memory.apply(*jax.tree.unflatten(tree, leaves), starts)[1] * weights)

    gradients = [np.asarray(leaf, np.float64) for leaf in jax.jit(jax.grad(loss))(leaves)]
    # jax.nn.dot_product_attention computes in float32 whatever it is given: small differences drown.
    step, tolerance = (3e-3, 5e-3) if name == "attention" else (1e-6, 2e-4)
    with jax.enable_x64(True):
        exact, wide = jax.jit(loss), [leaf.astype(np.float64) for leaf in leaves]
        for i, gradient in enumerate(gradients):
            scale, where = np.linalg.norm(gradient), jax.tree_util.keystr(paths[i][0])
            if scale == 0:
                assert where.endswith(".length"), f"{where}: only attention's count of steps has no gradient"
                continue
            noise = rng.normal(size=gradient.shape)
            for direction in (gradient / scale, noise / np.linalg.norm(noise)):
                ahead, behind = (
                    float(exact([*wide[:i], wide[i] + offset * direction, *wide[i + 1 :]]))
                    for offset in (step, -step)
                )
                error = abs(np.sum(gradient * direction) - (ahead - behind) / (2 * step))
                assert error <= tolerance * scale, where


@every_memory
@pytest.mark.parametrize("batch", [1, 3])
def test_state_shape_describes_the_initial_state(name: str, batch: int) -> None:
    memory = small(name)
    state = memory.initial_state(batch)

    def check(shape: tuple[int, ...], leaf: Any) -> None:
        assert leaf.shape == (batch, *shape)
        assert leaf.dtype == jnp.float32
        assert not np.any(leaf)

    jax.tree.map(check, memory.state_shape, state, is_leaf=lambda node: leaf_shape(node))
    x = inputs(3, batch)
    after, y = run(memory, params_of(memory), state, x, no_starts(3, batch))
    assert y.shape == (3, batch, memory.d_model)
    assert y.dtype == jnp.float32
    described = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree) for tree in (state, after)]
    assert described[0] == described[1]


def leaf_shape(node: Any) -> bool:
    return isinstance(node, tuple) and bool(node) and all(isinstance(n, int) for n in node)


@every_memory
@pytest.mark.parametrize("width", [1, *slow(8, 33)])
def test_any_input_width(name: str, width: int) -> None:
    memory = small(name)
    x = np.random.default_rng(0).normal(size=(4, BATCH, width)).astype(np.float32)
    params = params_of(memory, width)
    _, y = run(memory, params, memory.initial_state(BATCH), x, no_starts(4))
    assert y.shape == (4, BATCH, memory.d_model)
    assert np.isfinite(y).all()


@every_memory
def test_parameters_are_a_dict_of_a_dozen_stacked_leaves(name: str) -> None:
    memory = small(name, n_layers=3)
    params = params_of(memory)
    assert isinstance(params, dict)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    assert 1 <= len(leaves) <= 20
    for path, leaf in leaves:
        assert leaf.dtype == jnp.float32
        if not path[0].key.startswith("input_"):
            assert leaf.shape[0] == 3, f"{path} is not stacked over the layers"
    assert len(jax.tree.leaves(params_of(small(name, n_layers=1)))) == len(leaves)


@every_memory
def test_parameters_follow_from_the_key(name: str) -> None:
    memory = small(name)
    init = jax.jit(memory.init, static_argnums=1)
    first, again, other = (init(jax.random.key(k), WIDTH) for k in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert any(not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (first, other)), strict=True))


@every_memory
def test_equal_configurations_are_equal_and_compile_once(name: str) -> None:
    one, two, other = small(name), small(name), small(name, n_layers=1)
    assert one == two
    assert hash(one) == hash(two)
    assert one != other
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def counted(memory: Memory, *arguments: Any) -> Any:
        traces.append(memory)
        return memory.apply(*arguments)

    for memory in (one, two):
        counted(memory, params_of(one), memory.initial_state(BATCH), inputs(2), no_starts(2))
    assert len(traces) == 1


@every_memory
def test_a_memory_goes_through_json_and_back(name: str) -> None:
    memory = small(name)
    config = json.loads(json.dumps(memory.config))
    again = make_memory(name, **config)
    assert again == memory
    assert hash(again) == hash(memory)
    assert memory.name == name


@every_memory
def test_a_memory_cannot_be_changed(name: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        small(name).d_model = 16  # type: ignore[misc]


@pytest.fixture
def clean_registry() -> Iterator[None]:
    before = dict(registry._REGISTRY)
    yield
    registry._REGISTRY.clear()
    registry._REGISTRY.update(before)


@pytest.mark.usefixtures("clean_registry")
def test_a_registered_memory_is_made_by_name_with_tuples_for_lists() -> None:
    gru = registry.memory_class("gru")

    @register_memory("gru_with_widths")
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class WithWidths(gru):  # type: ignore[misc, valid-type]
        widths: tuple[int, ...] = ()

    memory = make_memory("gru_with_widths", widths=[1, 2])
    assert memory == WithWidths(widths=(1, 2))
    assert memory.widths == (1, 2)
    assert isinstance(hash(memory), int)
    assert "gru_with_widths" in memory_names()
    with pytest.raises(ValueError, match="gru_with_widths"):
        register_memory("gru_with_widths")(type("Another", (gru,), {}))


def message_of(name: Any, **config: Any) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (what it says is the caller's business)
        make_memory(name, **config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("typed", "meant"), [("s4", "s5"), ("grru", "gru"), ("feed_forward", "feedforward")])
def test_an_unknown_memory_names_the_nearest_first(typed: str, meant: str) -> None:
    message = message_of(typed)
    assert repr(typed) in message
    listed = message.split("expected one of ")[1].split(", ")
    assert listed[0] == meant
    assert set(listed) == set(memory_names())


@pytest.mark.parametrize("name", [None, 5, ["s5"]])
def test_a_memory_that_is_no_name_is_refused(name: Any) -> None:
    assert "s5" in message_of(name)


def test_an_unknown_argument_names_the_nearest_first() -> None:
    message = message_of("s5", d_sate=64)
    assert "'d_sate'" in message
    assert message.index("d_state") < message.index("n_blocks")


BAD_SIZES = [0, -8, 8.0, "8", True, None, float("nan"), (8,)]
BAD_NUMBERS = [0, -0.1, float("nan"), float("inf"), "0.1", None, True]
MISTAKES = [
    *[(field, {field: bad}) for field in ("d_model", "d_state", "n_layers", "n_blocks") for bad in BAD_SIZES],
    *[(field, {field: bad}) for field in ("dt_min", "dt_max") for bad in BAD_NUMBERS],
    ("d_state", {"d_state": 63}),
    ("d_state", {"d_state": 1}),
    ("d_state", {"d_state": 64, "n_blocks": 3}),
    ("dt_min", {"dt_min": 0.2, "dt_max": 0.1}),
    ("activation", {"activation": "half_glu"}),
    ("activation", {"activation": None}),
    ("norm", {"norm": "layer"}),
    ("discretization", {"discretization": "ZOH"}),
    ("method", {"method": "parallel"}),
    ("clip_eigenvalues", {"clip_eigenvalues": "yes"}),
    ("gtrxl_norm", {"gtrxl_norm": 1}),
]


@pytest.mark.parametrize(("field", "config"), MISTAKES, ids=str)
def test_a_bad_value_gets_one_line_with_name_value_and_expectation(
    field: str, config: dict[str, Any]
) -> None:
    message = message_of("s5", **config)
    assert message.startswith(f"{field}: got {config[field]!r}, expected")


@every_memory
@pytest.mark.parametrize("bad", BAD_SIZES, ids=str)
def test_every_memory_checks_its_sizes(name: str, bad: Any) -> None:
    for field in ("d_model", "n_layers"):
        assert message_of(name, **{field: bad}).startswith(f"{field}: got {bad!r}, expected")


def test_sizes_that_numpy_counted_are_taken() -> None:
    memory = make_memory("s5", d_model=np.int64(8), d_state=np.int32(8))
    assert memory == make_memory("s5", d_model=8, d_state=8)
    assert json.dumps(memory.config)


BAD_SEQUENCES = [
    ("x", ValueError, {"x": inputs()[:, 0]}),
    ("x", ValueError, {"x": inputs()[..., 1:]}),
    ("x", TypeError, {"x": inputs().astype(np.int32)}),
    ("episode_starts", TypeError, {"starts": no_starts().astype(np.float32)}),
    ("episode_starts", ValueError, {"starts": no_starts().T}),
]


@every_memory
@pytest.mark.parametrize(("named", "error", "changed"), BAD_SEQUENCES)
def test_a_sequence_that_does_not_fit_is_named(
    name: str, named: str, error: type[Exception], changed: dict[str, Any]
) -> None:
    memory = small(name)
    given = {"x": inputs(), "starts": no_starts()} | changed
    with pytest.raises(error, match=rf"^{named}: got .*, expected [^\n]*$"):
        memory.apply(params_of(memory), memory.initial_state(BATCH), given["x"], given["starts"])


@every_memory
def test_no_starts_at_all_are_taken_by_stacks_and_named_by_others(name: str) -> None:
    memory = small(name)
    given = params_of(memory), memory.initial_state(BATCH), inputs()
    if isinstance(memory, Stack):
        assert_close(memory.apply(*given, None), memory.apply(*given, jnp.asarray(no_starts())))
    else:
        with pytest.raises(TypeError, match=r"^episode_starts: got None, expected \(time, batch\) bool$"):
            memory.apply(*given, None)


@recurrent
def test_a_state_of_another_batch_or_kind_is_named(name: str) -> None:
    memory = small(name)
    for state in (memory.initial_state(BATCH + 1), [memory.initial_state(BATCH)]):
        with pytest.raises(ValueError, match=r"^state: got [^\n]*, expected [^\n]*$"):
            memory.apply(params_of(memory), state, inputs(), no_starts())
