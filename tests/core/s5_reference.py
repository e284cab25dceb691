"""S5 as its papers write it, in complex128 numpy: no packing, no chunks, one step and one layer at a time.

Smith et al. 2023 (arXiv 2208.04933): eq. 2 (the state space model), eq. 6 (zero-order hold), appendix B.1.1
(HiPPO-N); Lu et al. 2023 (arXiv 2303.03982) for resets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
LAYER_NORM_EPSILON = 1e-6
MAX_REAL_PART = -1e-4


def hippo_normal(size: int) -> Array:
    """The matrix HiPPO-N: HiPPO-LegS plus the rank-one term that makes it normal."""
    legs = np.zeros((size, size))
    for n in range(size):
        for k in range(n + 1):
            legs[n, k] = -(n + 1) if n == k else -np.sqrt(2 * n + 1) * np.sqrt(2 * k + 1)
    p = np.sqrt(np.arange(size) + 0.5)
    return legs + np.outer(p, p)


def gelu(x: Array) -> Array:
    """Gaussian error linear unit by its tanh approximation (Hendrycks and Gimpel 2016)."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def layer_norm(x: Array, scale: Array, bias: Array) -> Array:
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return scale * (x - mean) / np.sqrt(variance + LAYER_NORM_EPSILON) + bias


def discretize(eigenvalues: Array, b: Array, dt: Array, rule: str) -> tuple[Array, Array]:
    """Lambda (P,), B~ (P, H), dt (P,) -> Lambda_bar (P,), B_bar (P, H)."""
    if rule == "zoh":
        decay = np.exp(eigenvalues * dt)
        return decay, ((decay - 1) / eigenvalues)[:, None] * b
    inverse = 1 / (1 - dt / 2 * eigenvalues)
    return inverse * (1 + dt / 2 * eigenvalues), (inverse * dt)[:, None] * b


def activate(y: Array, params: Mapping[str, Array], kind: str) -> Array:
    if kind == "gelu":
        return gelu(y)
    kernel, bias = params["gate_kernel"], params["gate_bias"]
    gates = gelu(y) @ kernel + bias
    if kind == "full_glu":
        width = y.shape[-1]
        return gates[..., :width] * sigmoid(gates[..., width:])
    return (gelu(y) if kind == "half_glu1" else y) * sigmoid(gates)


def layer(
    params: Mapping[str, Array], x: Array, starts: Array, state: Array, config: Mapping[str, Any]
) -> tuple[Array, Array]:
    """One residual S5 block: x (T, B, H), starts (T, B), state (B, P) complex -> y (T, B, H), last state."""
    real = params["lambda_re"]
    if config["clip_eigenvalues"]:
        real = np.minimum(real, MAX_REAL_PART)
    eigenvalues = real + 1j * params["lambda_im"]
    b = (params["B"][:, 0] + 1j * params["B"][:, 1]).T
    c = (params["C"][0] + 1j * params["C"][1]).T
    decay, b_bar = discretize(eigenvalues, b, np.exp(params["log_dt"]), config["discretization"])

    def norm(z: Array) -> Array:
        return layer_norm(z, params["norm_scale"], params["norm_bias"])

    u = norm(x) if config["norm"] == "pre" else x
    y = np.zeros_like(u)
    for t in range(len(u)):
        state = decay * np.where(starts[t][:, None], 0, state) + u[t] @ b_bar.T
        y[t] = 2 * (state @ c.T).real + params["D"] * u[t]
    if config["gtrxl_norm"]:
        y = norm(y)
    out = x + activate(y, params, config["activation"])
    return (norm(out) if config["norm"] == "post" else out), state


def stack(
    params: Mapping[str, Array],
    state: tuple[Array, Array],
    x: Array,
    starts: Array,
    config: Mapping[str, Any],
) -> tuple[tuple[Array, Array], Array]:
    """The whole memory, with the project's layout of parameters and state, in double precision."""
    params = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    x = np.asarray(x, np.float64)
    if "input_kernel" in params:
        x = x @ params["input_kernel"] + params["input_bias"]
    per_layer = {name: leaf for name, leaf in params.items() if not name.startswith("input_")}
    carried = np.asarray(state[0], np.float64) + 1j * np.asarray(state[1], np.float64)
    finals = []
    for i in range(config["n_layers"]):
        own = {name: leaf[i] for name, leaf in per_layer.items()}
        x, final = layer(own, x, np.asarray(starts), carried[:, i], config)
        finals.append(final)
    last = np.stack(finals, axis=1)
    return (last.real, last.imag), x
