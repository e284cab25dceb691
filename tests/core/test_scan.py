"""`linear_recurrence` against a float64 loop: values, gradients, resets, and what its backward pass keeps."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from s5_adapters.core.recurrence.scan import linear_recurrence
from s5_adapters.core.recurrence.table import measured_method, varying_method
from tests.compilation import quick_compilation
from tests.marks import slow

from .reference import recurrence, recurrence_gradients, relative_error

pytestmark = pytest.mark.full_compilation

METHODS = ("sequential", "associative", "chunked")
VARYING = ("sequential", "associative")
VALUE_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4
constant_decay = pytest.mark.parametrize("method", METHODS)
PAIRS = [*((method, False) for method in METHODS), *((method, True) for method in VARYING)]
NAMES = [method + "-varying" * varies for method, varies in PAIRS]
every_method = pytest.mark.parametrize(("method", "varies"), PAIRS, ids=NAMES)
auto_too = pytest.mark.parametrize(
    ("method", "varies"), [*PAIRS, ("auto", False), ("auto", True)], ids=[*NAMES, "auto", "auto-varying"]
)

# Compiling costs far more than running, so tests share these shapes (length, batch, size) where they can.
SHORT = (40, (2,), 3)
LONG = (4096, (2,), 3)


class Problem(NamedTuple):
    """Arguments of one recurrence, as numpy arrays, and a cotangent for its states.

    Its decay is one for all steps, `(size,)`, or has the inputs' shape.
    """

    decay: np.ndarray
    inputs: np.ndarray
    starts: np.ndarray
    initial: np.ndarray
    cotangent: np.ndarray


def draw(rng: np.random.Generator, shape: tuple[int, ...], is_complex: bool) -> np.ndarray:
    """Standard normal numbers in single precision."""
    real = rng.normal(size=shape)
    return (
        (real + 1j * rng.normal(size=shape)).astype(np.complex64) if is_complex else real.astype(np.float32)
    )


def make_problem(
    length: int,
    batch: tuple[int, ...] = (3,),
    size: int = 4,
    is_complex: bool = True,
    magnitudes: tuple[float, float] = (0.3, 0.9995),
    reset_rate: float = 0.05,
    seed: int = 0,
    varies: bool = False,
) -> Problem:
    """A random problem, its decays of the given magnitudes, its resets at the given rate."""
    rng = np.random.default_rng(seed)
    shape = (length, *batch)
    sizes = (*shape, size) if varies else (size,)
    decay = rng.uniform(*magnitudes, sizes) * np.exp(1j * rng.uniform(-np.pi, np.pi, sizes))
    if not is_complex:
        decay = np.abs(decay) * rng.choice([-1, 1], sizes)
    return Problem(
        decay.astype(np.complex64 if is_complex else np.float32),
        draw(rng, (*shape, size), is_complex),
        rng.random(shape) < reset_rate,
        draw(rng, (*batch, size), is_complex),
        draw(rng, (*shape, size), is_complex),
    )


def traced(problem: Problem, method: str, reverse: bool) -> tuple[Any, Any]:
    """States, and the gradients of every argument that is not None (starts and initial may be)."""

    def run(decay: Any, inputs: Any, initial: Any) -> Any:
        return linear_recurrence(decay, inputs, problem.starts, initial, reverse=reverse, method=method)

    states, vjp = jax.vjp(run, problem.decay, problem.inputs, problem.initial)
    return states, vjp(jnp.asarray(problem.cotangent, states.dtype))


compiled = jax.jit(traced, static_argnums=(1, 2))


def states_and_gradients(problem: Problem, method: str, reverse: bool = False) -> tuple[Any, Any]:
    """`traced`, compiled once for a shape whichever test asks."""
    return compiled(problem, method, reverse)


def assert_matches(problem: Problem, got: tuple[Any, Any], reverse: bool = False, context: str = "") -> None:
    """Hold states and gradients against the float64 loop."""
    states, gradients = got
    with_initial = problem.initial is not None
    starts = np.zeros(problem.inputs.shape[:-1], bool) if problem.starts is None else problem.starts
    initial = problem.initial if with_initial else np.zeros(problem.inputs.shape[1:], problem.inputs.dtype)
    arguments = (problem.decay, problem.inputs, starts, initial)
    error = relative_error(states, recurrence(*arguments, reverse=reverse))
    assert error <= VALUE_TOLERANCE, f"states are off by {error:.1e} {context}"
    expected = recurrence_gradients(*arguments, problem.cotangent, reverse=reverse)
    for name, ours, theirs in zip(("decay", "inputs", "initial_state"), gradients, expected, strict=True):
        if name != "initial_state" or with_initial:
            error = relative_error(ours, theirs)
            assert error <= GRADIENT_TOLERANCE, f"the gradient of {name} is off by {error:.1e} {context}"


def reset_patterns(problem: Problem) -> Iterator[tuple[str, np.ndarray]]:
    """The same shape four times, so that one compiled program serves them all."""
    none = np.zeros_like(problem.starts)
    at_zero = none.copy()
    at_zero[0] = True
    yield from (("none", none), ("at 0", at_zero), ("every step", ~none), ("random", problem.starts))


lengths = st.one_of(st.integers(1, 48), st.integers(49, 600), st.integers(601, 4096))
batches = st.sampled_from([(), (1,), (3,), (2, 2)])


@auto_too
@settings(max_examples=3, deadline=None, derandomize=True)
@given(
    length=lengths,
    batch=batches,
    size=st.integers(1, 5),
    is_complex=st.booleans(),
    reverse=st.booleans(),
    with_initial=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@example(length=1, batch=(), size=1, is_complex=True, reverse=False, with_initial=True, seed=1)
@example(length=2, batch=(2, 2), size=3, is_complex=False, reverse=True, with_initial=True, seed=2)
@example(length=4096, batch=(2,), size=3, is_complex=True, reverse=False, with_initial=True, seed=3)
@example(length=4093, batch=(), size=2, is_complex=True, reverse=True, with_initial=True, seed=4)
def test_matches_a_float64_loop(
    method: str,
    varies: bool,
    length: int,
    batch: tuple[int, ...],
    size: int,
    is_complex: bool,
    reverse: bool,
    with_initial: bool,
    seed: int,
) -> None:
    problem = make_problem(length, batch, size, is_complex, seed=seed, varies=varies)
    if not with_initial:
        problem = problem._replace(initial=None)
    # A tree of every length is most of this file's compiling; as it ships it is compiled in the tests below.
    # Its many pairs are fused in a fraction of the time by XLA's own way.
    with quick_compilation({}) if method == "associative" else contextlib.nullcontext():
        for name, starts in reset_patterns(problem):
            patterned = problem._replace(starts=starts)
            got = states_and_gradients(patterned, method, reverse)
            assert_matches(patterned, got, reverse, context=f"with resets: {name}")


@every_method
@pytest.mark.parametrize("reverse", [False, True])
def test_no_episode_starts_is_no_reset(method: str, varies: bool, reverse: bool) -> None:
    problem = make_problem(*SHORT, varies=varies)._replace(starts=None)
    assert_matches(problem, states_and_gradients(problem, method, reverse), reverse)


@auto_too
@pytest.mark.parametrize("length", [3, 127])
def test_prime_lengths(method: str, varies: bool, length: int) -> None:
    problem = make_problem(length, batch=(2,), varies=varies)
    assert_matches(problem, states_and_gradients(problem, method))


@every_method
def test_a_batch_as_wide_as_a_rollout(method: str, varies: bool) -> None:
    problem = make_problem(96, batch=(64,), size=2, varies=varies)
    assert_matches(problem, states_and_gradients(problem, method))


@every_method
@pytest.mark.parametrize("is_complex", [False, True])
def test_decays_near_one_over_a_long_sequence(method: str, varies: bool, is_complex: bool) -> None:
    problem = make_problem(*LONG, is_complex, magnitudes=(0.9995, 0.99999), reset_rate=0.0, varies=varies)
    assert_matches(problem, states_and_gradients(problem, method))


@every_method
@pytest.mark.parametrize("is_complex", [False, True])
def test_a_decay_of_exactly_one_is_a_running_sum(method: str, varies: bool, is_complex: bool) -> None:
    problem = make_problem(*LONG, is_complex, varies=varies)
    problem = problem._replace(decay=np.ones_like(problem.decay))
    assert_matches(problem, states_and_gradients(problem, method))


@every_method
@pytest.mark.parametrize("is_complex", [False, True])
def test_a_decay_of_zero_forgets_at_once(method: str, varies: bool, is_complex: bool) -> None:
    problem = make_problem(*SHORT, is_complex, varies=varies)
    problem = problem._replace(decay=np.zeros_like(problem.decay))
    states, gradients = states_and_gradients(problem, method)
    np.testing.assert_array_equal(states, problem.inputs)
    assert_matches(problem, (states, gradients))


@every_method
@pytest.mark.parametrize("is_complex", [False, True])
def test_growing_states_have_finite_exact_gradients(method: str, varies: bool, is_complex: bool) -> None:
    # 1.01**4096 is 5e17: the states stay in range, and so must everything the method computes on the way.
    problem = make_problem(*LONG, is_complex, magnitudes=(1.002, 1.01), reset_rate=0.0, varies=varies)
    assert_matches(problem, states_and_gradients(problem, method))


@every_method
@pytest.mark.parametrize("is_complex", [False, True])
def test_growth_that_only_resets_keep_finite(method: str, varies: bool, is_complex: bool) -> None:
    # 1.5**4096 overflows single precision; resets every ten steps keep what matters below 1.5**10.
    problem = make_problem(*LONG, is_complex, magnitudes=(1.3, 1.5), varies=varies)
    starts = np.zeros_like(problem.starts)
    starts[::10] = True
    problem = problem._replace(starts=starts)
    assert_matches(problem, states_and_gradients(problem, method))


@every_method
def test_reverse_is_flip_run_flip(method: str, varies: bool) -> None:
    problem = make_problem(*SHORT, reset_rate=0.2, varies=varies)
    states, (d_decay, d_inputs, d_initial) = states_and_gradients(problem, method, reverse=True)
    flipped = Problem(*[a[::-1] if len(a) == SHORT[0] else a for a in problem])
    expected, (e_decay, e_inputs, e_initial) = states_and_gradients(flipped, method)
    e_decay = e_decay[::-1] if varies else e_decay
    pairs = (states, expected[::-1]), (d_decay, e_decay), (d_inputs, e_inputs[::-1]), (d_initial, e_initial)
    for ours, theirs in pairs:
        assert relative_error(ours, theirs) <= 1e-6


@constant_decay
def test_reverse_computes_generalised_advantages(method: str) -> None:
    # The trainer's use: one decay, no batch of lanes, `done` in the place of episode_starts.
    rng = np.random.default_rng(0)
    delta, done = rng.normal(size=(128, 16)).astype(np.float32), rng.random((128, 16)) < 0.1
    advantage = jax.jit(functools.partial(linear_recurrence, reverse=True, method=method))
    got = advantage(jnp.array([0.99 * 0.95]), delta[..., None], done)
    expected, running = np.zeros(delta.shape), np.zeros(16)
    for t in reversed(range(128)):
        running = delta[t] + 0.99 * 0.95 * np.where(done[t], 0, running)
        expected[t] = running
    assert relative_error(got[..., 0], expected) <= VALUE_TOLERANCE


@every_method
def test_gradients_follow_jax_for_complex_numbers(method: str, varies: bool) -> None:
    # The other tests trust a hand-derived adjoint; this one asks JAX itself, which does not conjugate.
    problem = make_problem(13, (2,), 3, reset_rate=0.2, varies=varies)

    def plain_loop(decay: Any, inputs: Any, initial: Any) -> Any:
        state, states = initial, []
        for t in range(len(inputs)):
            decay_t = decay[t] if varies else decay
            state = inputs[t] + jnp.where(problem.starts[t][:, None], 0, decay_t * state)
            states.append(state)
        return jnp.stack(states)

    def loss(scan: Any, *arguments: Any) -> Any:
        states = scan(*arguments)
        return jnp.sum(jnp.abs(states) ** 2) + jnp.sum((states * problem.cotangent).real)

    def ours(decay: Any, inputs: Any, initial: Any) -> Any:
        return linear_recurrence(decay, inputs, problem.starts, initial, method=method)

    arguments = (problem.decay, problem.inputs, problem.initial)
    with jax.enable_x64(True):
        exact = [a.astype(np.complex128) for a in arguments]
        expected = jax.jit(jax.grad(functools.partial(loss, plain_loop), argnums=(0, 1, 2)))(*exact)
        expected = [np.asarray(e) for e in expected]
    got = jax.jit(jax.grad(functools.partial(loss, ours), argnums=(0, 1, 2)))(*arguments)
    for ours_, theirs in zip(got, expected, strict=True):
        assert ours_.dtype == jnp.complex64
        assert relative_error(ours_, theirs) <= GRADIENT_TOLERANCE


@every_method
@pytest.mark.parametrize(
    ("decay_is_complex", "inputs_are_complex", "initial_is_complex"),
    [(False, True, True), *slow((True, False, False), (True, False, True), (True, True, False))],
)
def test_real_arguments_among_complex_ones(
    method: str, varies: bool, decay_is_complex: bool, inputs_are_complex: bool, initial_is_complex: bool
) -> None:
    problem = make_problem(*SHORT, varies=varies)
    problem = problem._replace(
        decay=problem.decay if decay_is_complex else problem.decay.real,
        inputs=problem.inputs if inputs_are_complex else problem.inputs.real,
        initial=problem.initial if initial_is_complex else problem.initial.real,
    )
    states, gradients = states_and_gradients(problem, method)
    assert states.dtype == jnp.complex64
    arguments = (problem.decay, problem.inputs, problem.initial)
    assert [g.dtype for g in gradients] == [a.dtype for a in arguments]
    assert_matches(problem, (states, gradients))


@every_method
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_are_exactly_zero_across_resets(method: str, varies: bool, reverse: bool) -> None:
    problem = make_problem(*SHORT, reset_rate=0.0, varies=varies)
    problem.starts[25] = True
    before, after = (slice(0, 25), slice(25, None)) if not reverse else (slice(26, None), slice(0, 26))
    cotangent = problem.cotangent.copy()
    cotangent[before] = 0
    _, (_, d_inputs, d_initial) = states_and_gradients(problem._replace(cotangent=cotangent), method, reverse)
    assert not np.any(d_inputs[before])
    assert not np.any(d_initial)
    assert np.all(np.asarray(d_inputs)[after] != 0)


@every_method
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("is_complex", [False, True])
def test_what_is_not_finite_never_crosses_a_reset(
    method: str, varies: bool, bad: float, is_complex: bool
) -> None:
    problem = make_problem(*SHORT, is_complex, reset_rate=0.0, varies=varies)
    problem.starts[[20, 21]] = True
    clean = states_and_gradients(problem, method)[0]
    inputs = problem.inputs.copy()
    inputs[12, 0] = bad
    states, _ = states_and_gradients(problem._replace(inputs=inputs), method)
    assert not np.isfinite(np.asarray(states)[12:20, 0]).any()
    np.testing.assert_array_equal(states[20:], clean[20:])
    np.testing.assert_array_equal(states[:, 1], clean[:, 1])


@every_method
def test_a_nan_state_carried_in_is_dropped_by_a_start_at_zero(method: str, varies: bool) -> None:
    problem = make_problem(*SHORT, reset_rate=0.0, varies=varies)
    problem.starts[0, 0] = True
    initial = problem.initial.copy()
    initial[0] = np.nan
    states, (d_decay, d_inputs, d_initial) = states_and_gradients(problem._replace(initial=initial), method)
    for array in (states, d_decay, d_inputs, d_initial):
        assert np.isfinite(array).all()
    assert not np.any(d_initial[0])
    assert np.all(np.asarray(d_initial[1]) != 0)


@every_method
def test_a_nan_state_before_a_reset_leaves_the_gradients_finite(method: str, varies: bool) -> None:
    # The last step of an episode is NaN; the loss does not look at it. Nothing may multiply it by zero.
    problem = make_problem(*SHORT, reset_rate=0.0, varies=varies)
    problem.starts[20] = True
    inputs, cotangent = problem.inputs.copy(), problem.cotangent.copy()
    inputs[19], cotangent[19] = np.nan, 0
    _, gradients = states_and_gradients(problem._replace(inputs=inputs, cotangent=cotangent), method)
    inputs[19] = 0
    _, expected = states_and_gradients(problem._replace(inputs=inputs, cotangent=cotangent), method)
    for ours, theirs in zip(gradients, expected, strict=True):
        assert relative_error(ours, theirs) <= GRADIENT_TOLERANCE


@every_method
def test_a_nan_cotangent_never_crosses_a_reset(method: str, varies: bool) -> None:
    problem = make_problem(*SHORT, reset_rate=0.0, varies=varies)
    problem.starts[20] = True
    cotangent = problem.cotangent.copy()
    cotangent[33] = np.nan
    _, (_, d_inputs, d_initial) = states_and_gradients(problem._replace(cotangent=cotangent), method)
    assert np.isfinite(d_inputs[:20]).all()
    assert np.isfinite(d_initial).all()
    assert np.isnan(d_inputs[20:34]).all()


@every_method
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_short_inputs_keep_a_single_precision_state(method: str, varies: bool, dtype: Any) -> None:
    problem = make_problem(*SHORT, is_complex=False, varies=varies)
    short = problem._replace(inputs=jnp.asarray(problem.inputs, dtype))
    states, gradients = states_and_gradients(short, method)
    assert states.dtype == jnp.float32
    assert [g.dtype for g in gradients] == [jnp.float32, dtype, jnp.float32]
    exact = problem._replace(inputs=np.asarray(short.inputs, np.float32))
    expected_states, expected = states_and_gradients(exact, method)
    assert relative_error(states, expected_states) <= VALUE_TOLERANCE
    for name, ours, theirs in zip(("decay", "inputs", "initial_state"), gradients, expected, strict=True):
        rounding = float(jnp.finfo(dtype).eps) if name == "inputs" else GRADIENT_TOLERANCE
        assert relative_error(np.asarray(ours, np.float32), theirs) <= rounding, name


@every_method
def test_vmap_and_jit_change_nothing(method: str, varies: bool) -> None:
    problems = [make_problem(*SHORT, seed=seed, varies=varies) for seed in range(3)]
    stacked = Problem(*[np.stack(parts) for parts in zip(*problems, strict=True)])
    states, gradients = jax.jit(jax.vmap(lambda p: traced(p, method, False)))(stacked)
    for i, problem in enumerate(problems):
        assert_matches(problem, (states[i], [g[i] for g in gradients]))


@every_method
def test_vmap_over_decays_alone(method: str, varies: bool) -> None:
    problem = make_problem(*SHORT, varies=varies)
    decays = np.stack([problem.decay, 0.5 * problem.decay])
    states = jax.jit(jax.vmap(lambda d: linear_recurrence(d, *problem[1:4], method=method)))(decays)
    for decay, got in zip(decays, states, strict=True):
        assert relative_error(got, recurrence(decay, *problem[1:4])) <= VALUE_TOLERANCE


@every_method
def test_one_compilation_serves_every_reset(method: str, varies: bool) -> None:
    traces = []

    @jax.jit
    def run(*arguments: Any) -> Any:
        traces.append(1)
        return linear_recurrence(*arguments, method=method)

    for seed in range(3):
        run(*make_problem(*SHORT, seed=seed, varies=varies)[:4])
    assert len(traces) == 1


@every_method
def test_split_in_two_equals_whole(method: str, varies: bool) -> None:
    problem = make_problem(*SHORT, varies=varies)
    whole, _ = states_and_gradients(problem, method)
    head, tail = (
        Problem(*[a[part] if len(a) == SHORT[0] else a for a in problem])
        for part in (slice(0, 20), slice(20, None))
    )
    head_states, _ = states_and_gradients(head, method)
    tail_states, _ = states_and_gradients(tail._replace(initial=np.asarray(head_states[-1])), method)
    assert relative_error(np.concatenate([head_states, tail_states]), whole) <= VALUE_TOLERANCE


@every_method
def test_it_is_linear_in_inputs_and_initial_state(method: str, varies: bool) -> None:
    a, b = make_problem(*SHORT, seed=1, varies=varies), make_problem(*SHORT, seed=2, varies=varies)
    b = b._replace(decay=a.decay, starts=a.starts)
    total = a._replace(inputs=2 * a.inputs + b.inputs, initial=2 * a.initial + b.initial)
    of_a, of_b, of_total = (states_and_gradients(p, method)[0] for p in (a, b, total))
    assert relative_error(of_total, 2 * of_a + of_b) <= VALUE_TOLERANCE


@every_method
def test_second_derivatives_exist(method: str, varies: bool) -> None:
    # x_2 = decay**2 h + decay u_0 + u_1, so the second derivative in the decay is 2 h.
    def last(decay: Any) -> Any:
        inputs, initial = jnp.array([[1.0], [2.0]]), jnp.array([3.0])
        decays = jnp.broadcast_to(decay, (2, 1) if varies else (1,))
        return linear_recurrence(decays, inputs, None, initial, method=method)[-1, 0]

    second = jax.jit(jax.grad(jax.grad(last)))(0.5)
    np.testing.assert_allclose(second, 6.0, rtol=1e-6)


@every_method
def test_double_precision_stays_double(method: str, varies: bool) -> None:
    problem = make_problem(*SHORT, varies=varies)
    with jax.enable_x64(True):
        double = Problem(*[a if a.dtype == bool else a.astype(np.complex128) for a in problem])
        states, gradients = states_and_gradients(double, method)
    assert states.dtype == np.complex128
    assert relative_error(states, recurrence(*double[:4])) <= 1e-13
    for ours, theirs in zip(gradients, recurrence_gradients(*double), strict=True):
        assert relative_error(ours, theirs) <= 1e-12


@every_method
@pytest.mark.parametrize("shape", [(0, 2, 3), (0, 3), (5, 0, 3), (5, 2, 0)])
def test_nothing_in_nothing_out(method: str, varies: bool, shape: tuple[int, ...]) -> None:
    length, *batch, size = shape
    problem = make_problem(length, tuple(batch), size, varies=varies)
    states, gradients = states_and_gradients(problem, method)
    assert states.shape == shape
    assert [g.shape for g in gradients] == [shape if varies else (size,), shape, (*batch, size)]
    assert not any(np.any(g) for g in gradients if length == 0)


every_varying = pytest.mark.parametrize("method", VARYING)


@every_varying
@pytest.mark.parametrize("is_complex", [False, True])
def test_one_decay_for_all_steps_equals_it_at_every_step(method: str, is_complex: bool) -> None:
    problem = make_problem(*SHORT, is_complex)
    varying = problem._replace(decay=np.broadcast_to(problem.decay, problem.inputs.shape).copy())
    states, (d_decay, *gradients) = states_and_gradients(problem, method)
    got, (d_decays, *got_gradients) = states_and_gradients(varying, method)
    pairs = (
        (got, states),
        (jnp.sum(d_decays, axis=(0, 1)), d_decay),
        *zip(got_gradients, gradients, strict=True),
    )
    for ours, theirs in pairs:
        assert relative_error(ours, theirs) <= 1e-5


@every_varying
@pytest.mark.parametrize("reverse", [False, True])
def test_a_decay_that_is_not_finite_never_crosses_a_reset(method: str, reverse: bool) -> None:
    # An input that is not finite makes such decays; that of a start itself multiplies nothing.
    problem = make_problem(*SHORT, is_complex=False, reset_rate=0.0, varies=True)
    problem.starts[20] = True
    decay = problem.decay.copy()
    decay[20] = np.nan
    clean = states_and_gradients(problem, method, reverse)
    got = states_and_gradients(problem._replace(decay=decay), method, reverse)
    jax.tree.map(np.testing.assert_array_equal, got, clean)
    bad, other = (25, slice(0, 21)) if reverse else (15, slice(20, None))
    decay[bad] = np.nan
    cotangent = np.zeros_like(problem.cotangent)
    cotangent[other] = problem.cotangent[other]
    states, (d_decay, d_inputs, _) = states_and_gradients(
        problem._replace(decay=decay, cotangent=cotangent), method, reverse
    )
    assert np.isnan(states[bad]).all(), "within its episode it must show"
    np.testing.assert_array_equal(states[other], clean[0][other])
    assert np.isfinite(np.asarray(d_decay)[other]).all()
    assert np.isfinite(np.asarray(d_inputs)[other]).all()


def test_products_of_decays_that_overflow_do_not_spoil_states_that_do_not() -> None:
    decay, inputs = np.full((300, 1), 2.0, np.float32), np.zeros((300, 1), np.float32)
    for method in VARYING:
        assert not np.any(linear_recurrence(decay, inputs, method=method)), method


def test_auto_takes_a_method_for_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    assert varying_method() in VARYING
    monkeypatch.setattr("s5_adapters.core.recurrence.table.default_platform", lambda: "gpu")
    assert varying_method() == "associative"


UNTOUCHED, DECAY, DATA = range(3)
LOOP_CONSTANTS = {
    ("scan", "jaxpr"): "num_consts",
    ("while", "body_jaxpr"): "body_nconsts",
    ("while", "cond_jaxpr"): "cond_nconsts",
}


def inner_programs(equation: JaxprEqn, reads: list[int]) -> Iterator[tuple[Jaxpr, list[int]]]:
    """The programs inside an equation, each with the marks of its arguments.

    An inner program's arguments are the last of the equation's. What a loop carries becomes data as soon as
    the loop reads any.
    """
    for name, parameter in equation.params.items():
        for part in parameter if isinstance(parameter, tuple | list) else [parameter]:
            if isinstance(part, ClosedJaxpr | Jaxpr):
                jaxpr = part.jaxpr if isinstance(part, ClosedJaxpr) else part
                marks = ([UNTOUCHED] * len(jaxpr.invars) + reads)[len(reads) :]
                constants = equation.params.get(LOOP_CONSTANTS.get((equation.primitive.name, name), ""))
                if constants is not None and DATA in reads:
                    marks[constants:] = [DATA] * len(marks[constants:])
                yield jaxpr, marks


def decay_shapes(jaxpr: Jaxpr, marks: list[int]) -> set[tuple[int, ...]]:
    """Shapes of all values that depend on the decay and on no data (inputs and states, and what they touch).

    `marks` says which of the program's arguments are the decay and which are data. The shapes should be those
    of a few powers of the decay; one as long as time is an array of decays.
    """
    known = dict(zip(jaxpr.invars, marks, strict=True))
    shapes: set[tuple[int, ...]] = set()
    for equation in jaxpr.eqns:
        reads = [UNTOUCHED if isinstance(v, Literal) else known.get(v, UNTOUCHED) for v in equation.invars]
        for inner, inner_marks in inner_programs(equation, reads):
            shapes |= decay_shapes(inner, inner_marks)
        for variable in equation.outvars:
            known[variable] = max(reads, default=UNTOUCHED)
            if known[variable] == DECAY:
                shapes.add(variable.aval.shape)
    return shapes


@constant_decay
@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_no_array_of_decays_over_time_is_built(method: str, is_complex: bool, reverse: bool) -> None:
    length, size = 2048, 2
    problem = make_problem(length, (2,), size, is_complex)

    def run(decay: Any, *others: Any) -> Any:
        return traced(Problem(decay, *others), method, reverse)

    marks = Problem(decay=DECAY, inputs=DATA, starts=UNTOUCHED, initial=DATA, cotangent=DATA)
    shapes = decay_shapes(jax.make_jaxpr(run)(*problem).jaxpr, list(marks))
    assert shapes, "the decay was not followed: the test sees nothing"
    largest = max(shapes, key=math.prod)
    assert math.prod(largest) < length / 4, f"an array of decays of shape {largest} was built"


def test_an_array_of_decays_over_time_would_be_found() -> None:
    # The published scan builds one (T, B, P); without this the test above could pass by seeing nothing.
    problem = make_problem(64, (2,), 2)

    def published(decay: Any, inputs: Any, starts: Any) -> Any:
        decays = jnp.where(starts[..., None], 0, decay)
        return jax.lax.associative_scan(lambda a, b: (a[0] * b[0], b[0] * a[1] + b[1]), (decays, inputs))[1]

    jaxpr = jax.make_jaxpr(published)(*problem[:3]).jaxpr
    assert (64, 2, 2) in decay_shapes(jaxpr, [DECAY, DATA, UNTOUCHED])


@every_method
@pytest.mark.parametrize("is_complex", [False, True])
def test_the_backward_pass_keeps_the_states_and_nothing_else(
    method: str, varies: bool, is_complex: bool
) -> None:
    problem = make_problem(1024, (3,), 5, is_complex, varies=varies)

    def forward(decay: Any, inputs: Any, starts: Any, initial: Any) -> Any:
        return jax.vjp(
            lambda d, u, h: linear_recurrence(d, u, starts, h, method=method), decay, inputs, initial
        )

    states, vjp = jax.eval_shape(forward, *problem[:4])
    kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(vjp))
    states_size = states.size * states.dtype.itemsize
    allowed = sum(a.nbytes for a in (problem.decay, problem.starts, problem.initial)) + 256
    assert states_size <= kept <= states_size + allowed


def test_unknown_platforms_and_shapes_have_a_method() -> None:
    for length, batch in ((1, 1), (1, 4096), (100_000, 1), (0, 0)):
        assert measured_method(length=length, batch=batch, width=64) in METHODS


MISTAKES = [
    ("decay", {"decay": np.array([1, 2, 3])}, TypeError, ["int64", "floating"]),
    ("decay", {"decay": np.ones((2, 3), np.float32)}, ValueError, ["(2, 3)", "(P,)", "(5, 2, 3)"]),
    ("decay", {"decay": np.ones((5, 2, 1), np.float32)}, ValueError, ["(5, 2, 1)", "(P,)", "(5, 2, 3)"]),
    ("decay", {"decay": np.float32(0.5)}, ValueError, ["()", "(P,)"]),
    ("inputs", {"inputs": np.ones((5, 2, 3), np.int8)}, TypeError, ["int8", "floating"]),
    ("inputs", {"inputs": np.ones((5, 2, 3), bool)}, TypeError, ["bool", "floating"]),
    ("inputs", {"inputs": np.ones((5, 2, 4), np.float32)}, ValueError, ["(5, 2, 4)", "3"]),
    ("inputs", {"inputs": np.ones(3, np.float32)}, ValueError, ["(3,)", "time"]),
    ("episode_starts", {"episode_starts": np.zeros((5, 2), np.float32)}, TypeError, ["float32", "bool"]),
    ("episode_starts", {"episode_starts": np.zeros((5, 2), np.int32)}, TypeError, ["int32", "bool"]),
    ("episode_starts", {"episode_starts": np.zeros((2, 5), bool)}, ValueError, ["(2, 5)", "(5, 2)"]),
    ("episode_starts", {"episode_starts": np.zeros(5, bool)}, ValueError, ["(5,)", "(5, 2)"]),
    ("initial_state", {"initial_state": np.zeros((2, 3), np.int32)}, TypeError, ["int32", "floating"]),
    ("initial_state", {"initial_state": np.zeros(3, np.float32)}, ValueError, ["(3,)", "(2, 3)"]),
    ("method", {"method": "chunk"}, ValueError, ["'chunk'", "of chunked", "sequential", "associative"]),
    ("method", {"method": None}, ValueError, ["None", "sequential"]),
    ("method", {"decay": np.ones((5, 2, 3), np.float32), "method": "chunked"}, ValueError, ["of auto, seq"]),
    ("method", {"decay": np.ones((5, 2, 3), np.float32), "method": "pallas"}, ValueError, ["of auto, seq"]),
]


@pytest.mark.parametrize(("argument", "change", "error", "parts"), MISTAKES)
def test_a_mistake_gets_one_line_that_names_the_argument(
    argument: str, change: dict[str, Any], error: type[Exception], parts: list[str]
) -> None:
    good = {"decay": np.ones(3, np.float32), "inputs": np.ones((5, 2, 3), np.float32)}
    with pytest.raises(error) as caught:
        linear_recurrence(**{**good, **change})
    message = str(caught.value)
    assert message.startswith(f"{argument}:")
    assert "\n" not in message
    for part in parts:
        assert part.replace("int64", "int") in message
