"""LRU, minGRU and Mamba against transcriptions of their papers in float64 numpy, and how they start."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5_adapters.core import make_memory
from s5_adapters.core.recurrence.convolution import causal_convolution

from .reference import relative_error
from .s5_reference import activate, layer_norm, sigmoid

Array = np.ndarray[Any, Any]
LENGTH, BATCH, WIDTH = 19, 3, 5
SMALL: dict[str, dict[str, Any]] = {
    "lru": {"d_state": 8, "r_min": 0.3, "r_max": 0.9},
    "mingru": {"d_conv": 3},
    "mamba": {"d_state": 3, "d_conv": 3},
}
every_paper = pytest.mark.parametrize("name", SMALL)


def softplus(x: Array) -> Array:
    return np.logaddexp(0, x)


def lru(p: dict[str, Array], u: Array, starts: Array, state: Any, config: Any) -> tuple[Array, Any]:
    """One layer as Orvieto et al. write it (equation 3 with sections 3.3 and 3.4), in complex128."""
    decay = np.exp(-np.exp(p["nu_log"]) + 1j * np.exp(p["theta_log"]))
    b, c = (p["B"][:, 0] + 1j * p["B"][:, 1]).T, (p["C"][0] + 1j * p["C"][1]).T
    x, y = state[0] + 1j * state[1], np.zeros_like(u)
    for t in range(len(u)):
        x = decay * np.where(starts[t][:, None], 0, x) + np.exp(p["gamma_log"]) * (u[t] @ b.T)
        y[t] = (x @ c.T).real + p["D"] * u[t]
    return y, (x.real, x.imag)


def mingru(p: dict[str, Array], u: Array, starts: Array, state: Any, config: Any) -> tuple[Array, Any]:
    """One layer as Feng et al. write it, section 3.1, after a convolution whose buffer is cleared."""
    width, (buffer, h), y = u.shape[-1], state, np.zeros_like(u)
    for t in range(len(u)):
        window = np.concatenate([np.where(starts[t][:, None, None], 0, buffer), u[t][:, None]], axis=1)
        buffer = window[:, 1:]
        v = np.sum(window * p["conv_kernel"], axis=1) + p["conv_bias"]
        products = v @ p["kernel"] + p["bias"]
        z, candidate = sigmoid(products[:, :width]), products[:, width:]
        h = (1 - z) * np.where(starts[t][:, None], 0, h) + z * candidate
        y[t] = h
    return y, (buffer, h)


def mamba(p: dict[str, Array], u: Array, starts: Array, state: Any, config: Any) -> tuple[Array, Any]:
    """One block as Gu and Dao draw it (figure 3, algorithm 2), step by step with a buffer that is cleared."""
    size, rank = config["d_state"], len(p["dt_kernel"])
    buffer, h = state
    a, y = -np.exp(p["log_a"]), np.zeros_like(u)

    def silu(x: Array) -> Array:
        return x * sigmoid(x)

    for t in range(len(u)):
        buffer = np.where(starts[t][:, None, None], 0, buffer)
        h = np.where(starts[t][:, None, None], 0, h)
        x, z = np.split(u[t] @ p["in_kernel"], 2, axis=-1)
        window = np.concatenate([buffer, x[:, None]], axis=1)
        buffer = window[:, 1:]
        x = silu(np.sum(window * p["conv_kernel"], axis=1) + p["conv_bias"])
        selected = x @ p["select_kernel"]
        dt = softplus(selected[:, :rank] @ p["dt_kernel"] + p["dt_bias"])
        b, c = selected[:, rank : rank + size], selected[:, rank + size :]
        h = np.exp(dt[:, None] * a) * h + b[:, :, None] * (dt * x)[:, None]
        y[t] = ((np.sum(c[:, :, None] * h, axis=1) + p["D"] * x) * silu(z)) @ p["out_kernel"]
    return y, (buffer, h)


PAPERS = {"lru": lru, "mingru": mingru, "mamba": mamba}


def stack(memory: Any, params: Any, state: Any, x: Array, starts: Array) -> tuple[Any, Array]:
    """The whole memory around a paper's layer, in double precision."""
    config = memory.config
    params = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    x = np.asarray(x, np.float64) @ params.pop("input_kernel") + params.pop("input_bias")
    finals = []
    for i in range(memory.n_layers):
        own = {name: leaf[i] for name, leaf in params.items()}
        initial = jax.tree.map(lambda leaf, i=i: np.asarray(leaf, np.float64)[:, i], state)
        u = layer_norm(x, own["norm_scale"], own["norm_bias"]) if config["norm"] == "pre" else x
        y, final = PAPERS[memory.name](own, u, starts, initial, config)
        x = x + (y if config["activation"] == "none" else activate(y, own, config["activation"]))
        finals.append(final)
    return jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *finals), x


def problem(name: str) -> tuple[Any, ...]:
    """A memory, parameters with no leaf at a special value, a state that is not zero, episodes."""
    memory = make_memory(name, d_model=6, n_layers=2, **SMALL[name])
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: np.asarray(leaf + 0.1 * rng.normal(size=leaf.shape), np.float32),
        memory.init(jax.random.key(0), WIDTH),
    )
    state = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), memory.initial_state(BATCH)
    )
    x = rng.normal(size=(LENGTH, BATCH, WIDTH)).astype(np.float32)
    return memory, params, state, x, rng.random((LENGTH, BATCH)) < 0.2


@every_paper
def test_sequence_and_steps_equal_the_papers_equations(name: str) -> None:
    memory, params, state, x, starts = problem(name)
    final, y = jax.jit(memory.apply)(params, state, x, starts)
    expected_final, expected = stack(memory, params, state, x, starts)
    assert relative_error(y, expected) <= 1e-5
    leaves, expected_leaves = jax.tree.leaves(final), jax.tree.leaves(expected_final)
    assert [leaf.shape for leaf in leaves] == [leaf.shape for leaf in expected_leaves]
    for leaf, expected_leaf in zip(leaves, expected_leaves, strict=True):
        assert relative_error(leaf, expected_leaf) <= 1e-5
    prepared, step = jax.jit(memory.prepare)(params), jax.jit(memory.step)
    for t in range(LENGTH):
        state, y_t = step(prepared, state, x[t], starts[t])
        np.testing.assert_allclose(y_t, expected[t], rtol=1e-4, atol=1e-5)


@every_paper
def test_chunks_and_recomputation_change_nothing(name: str) -> None:
    memory, params, state, x, starts = problem(name)

    def gradients_of(**settings: Any) -> Any:
        changed = dataclasses.replace(memory, **settings)

        def loss(params: Any, state: Any, x: Any) -> Any:
            final, y = changed.apply(params, state, x, starts)
            return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves((final, y)))

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(params, state, x)

    expected = gradients_of(chunk_rows=0, remat="none")
    for remat in ("dots", "full"):
        # 19 steps of 3 rows in chunks of 12 rows: four chunks and a remainder.
        got = gradients_of(chunk_rows=12, remat=remat)
        for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            assert relative_error(ours, theirs) <= 1e-5, remat


def test_a_fresh_lru_lies_on_its_ring_and_keeps_the_variance_of_noise() -> None:
    memory = make_memory("lru", d_model=4, d_state=4000, r_min=0.5, r_max=0.9, max_phase=0.3)
    params = {name: np.asarray(leaf[0]) for name, leaf in memory.init(jax.random.key(0), 4).items()}
    radius, phase = np.exp(-np.exp(params["nu_log"])), np.exp(params["theta_log"])
    assert 0.5 <= radius.min() < 0.51
    assert 0.89 < radius.max() <= 0.9
    assert phase.min() > 0
    assert 0.29 < phase.max() <= 0.3
    # Uniform in area: the squares of the radii are uniform, so half of the lanes lie outside their middle.
    assert np.mean(radius**2 > (0.25 + 0.81) / 2) == pytest.approx(0.5, abs=0.03)
    np.testing.assert_allclose(np.exp(2 * params["gamma_log"]) / (1 - radius**2), 1, rtol=1e-4)


@pytest.mark.parametrize("ring", [{"r_min": 0.0, "r_max": 1.0}, {"r_min": 0.999999, "r_max": 1.0}])
def test_any_ring_starts_finite(ring: dict[str, float]) -> None:
    params = make_memory("lru", d_model=4, d_state=20_000, **ring).init(jax.random.key(0), 4)
    assert all(np.isfinite(leaf).all() for leaf in params.values())


def test_a_fresh_mingrus_gates_are_spread() -> None:
    bias = np.asarray(make_memory("mingru", d_model=2000).init(jax.random.key(0), 4)["bias"][0, :2000])
    gates = np.sort(sigmoid(bias))
    assert np.max(np.abs(gates - (np.arange(2000) + 0.5) / 2000)) < 1.95 / np.sqrt(2000), "KS test at 0.1 %"


def test_a_fresh_mamba_has_log_uniform_time_steps_and_the_papers_a() -> None:
    memory = make_memory("mamba", d_model=200, dt_min=0.01, dt_max=0.5)
    params = {name: np.asarray(leaf[0]) for name, leaf in memory.init(jax.random.key(0), 4).items()}
    dt = softplus(params["dt_bias"])
    assert 0.0099 < dt.min() < 0.0105
    assert 0.47 < dt.max() < 0.501
    assert np.median(dt) == pytest.approx(np.sqrt(0.005), rel=0.15)
    np.testing.assert_allclose(np.exp(params["log_a"]), np.tile(np.arange(1, 17)[:, None], 400), rtol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 7])
def test_the_convolution_sees_no_step_from_before_a_reset(length: int) -> None:
    rng = np.random.default_rng(length)
    kernel, bias = rng.normal(size=(4, 2)).astype(np.float32), rng.normal(size=2).astype(np.float32)
    buffer, x = rng.normal(size=(5, 3, 2)).astype(np.float32), rng.normal(size=(length, 5, 2))
    starts = rng.random((length, 5)) < 0.4
    starts[:, 0], starts[0, 1], starts[-1, 2] = False, True, True
    last, y = jax.jit(causal_convolution)(kernel, bias, buffer, jnp.asarray(x, jnp.float32), starts)
    expected = np.asarray(buffer, np.float64)
    for t in range(length):
        expected = np.where(starts[t][:, None, None], 0, expected)
        window = np.concatenate([expected, x[t][:, None]], axis=1)
        np.testing.assert_allclose(y[t], np.sum(window * kernel, axis=1) + bias, rtol=1e-4, atol=1e-5)
        expected = window[:, 1:]
    np.testing.assert_allclose(last, expected, rtol=1e-6)


MISTAKES = [
    ("lru", "d_state", {"d_state": 7}),
    ("lru", "r_min", {"r_min": 0.9, "r_max": 0.5}),
    ("lru", "r_min", {"r_min": -0.1}),
    ("lru", "r_max", {"r_max": 1.1}),
    ("lru", "r_max", {"r_max": float("nan")}),
    ("lru", "max_phase", {"max_phase": 0}),
    ("lru", "activation", {"activation": "relu"}),
    ("mingru", "method", {"method": "chunked"}),
    ("mingru", "d_conv", {"d_conv": 1}),
    ("mamba", "method", {"method": "pallas"}),
    ("mamba", "d_state", {"d_state": 0}),
    ("mamba", "d_conv", {"d_conv": 1}),
    ("mamba", "expand", {"expand": 1.5}),
    ("mamba", "dt_min", {"dt_min": 0.2, "dt_max": 0.1}),
]


@pytest.mark.parametrize(("name", "field", "config"), MISTAKES, ids=str)
def test_a_bad_value_gets_one_line_with_name_value_and_expectation(
    name: str, field: str, config: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=rf"^{field}: got [^\n]*, expected [^\n]*$") as caught:
        make_memory(name, **config)
    assert f"got {config[field]!r}" in str(caught.value)


def test_init_is_understood_as_it_was_once_called() -> None:
    memory = make_memory("gru", d_model=8)
    state, x, starts = memory.initial_state(2), jnp.ones((5, 2, 3)), jnp.zeros((5, 2), bool)
    with pytest.warns(DeprecationWarning, match=r"call init\(key, width\)"):
        former = jax.jit(memory.init)(jax.random.key(0), state, x, starts)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), former, memory.init(jax.random.key(0), 3)
    )
