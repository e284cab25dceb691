"""The program that the benchmarks compare with: S5 with resets as the paper's program computes it.

Lu et al., "Structured State Space Models for In-Context Reinforcement Learning" (arXiv 2303.03982): complex64
throughout, the parameters discretised in every call, `jax.lax.associative_scan` over triples (decay, input,
reset) with one decay per step, one sequence at a time and the batch by `vmap`. Parameters are those of
`s5_adapters`, so that both sides compute the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

Element = tuple[jax.Array, jax.Array, jax.Array]
Params = Mapping[str, jax.Array]


def published_operator(first: Element, second: Element) -> Element:
    """Compose two stretches of a recurrence with resets: a reset in `second` makes it forget `first`."""
    decay_i, input_i, reset_i = first
    decay_j, input_j, reset_j = second
    keep = 1 - reset_j
    return (
        decay_j * decay_i * keep + decay_j * reset_j,
        (decay_j * input_i + input_j) * keep + input_j * reset_j,
        reset_i * keep + reset_j,
    )


def scan_one(decay: jax.Array, inputs: jax.Array, starts: jax.Array, initial: jax.Array) -> jax.Array:
    """Scan one sequence: inputs (T, P) complex64, starts (T,) bool, initial (P,) -> states (T, P)."""
    decays = jnp.concatenate([jnp.ones_like(decay)[None], decay * jnp.ones_like(inputs)])
    resets = jnp.concatenate([jnp.zeros(1, bool), starts]).astype(jnp.float32)[:, None]
    elements = (decays, jnp.concatenate([initial[None], inputs]), resets)
    return jax.lax.associative_scan(published_operator, elements)[1][1:]


published_scan = jax.vmap(scan_one, in_axes=(None, 1, 1, 0), out_axes=1)
"""The recurrence of a batch: inputs (T, B, P) complex64, starts (T, B), initial (B, P) -> like inputs."""


def discretise(params: Params) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Discretise by zero-order hold: decay (P,), input matrix (P, H) and output matrix (H, P), complex64."""
    eigenvalues = jax.lax.complex(params["lambda_re"], params["lambda_im"])
    decay = jnp.exp(eigenvalues * jnp.exp(params["log_dt"]))
    into = jax.lax.complex(params["B"][:, 0].T, params["B"][:, 1].T)
    out = jax.lax.complex(params["C"][0].T, params["C"][1].T)
    return decay, ((decay - 1) / eigenvalues)[:, None] * into, out


def published_layer(
    params: Params, u: jax.Array, starts: jax.Array, initial: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Apply one state space layer: u (T, B, H) -> (last states (B, P) complex64, y (T, B, H))."""
    decay, into, out = discretise(params)

    def one(u: jax.Array, starts: jax.Array, initial: jax.Array) -> tuple[jax.Array, jax.Array]:
        states = scan_one(decay, jax.vmap(lambda u_t: into @ u_t)(u), starts, initial)
        return states[-1], jax.vmap(lambda x_t: 2 * (out @ x_t).real)(states) + params["D"] * u

    return jax.vmap(one, in_axes=(1, 1, 0), out_axes=(0, 1))(u, starts, initial)


def gate(params: Params, skip: jax.Array, y: jax.Array) -> jax.Array:
    """Apply the rest of a block: gelu, two dense maps, one gating the other, the residual."""
    hidden = jax.nn.gelu(y) @ params["gate_kernel"] + params["gate_bias"]
    values, gates = jnp.split(hidden, 2, axis=-1)
    return skip + values * jax.nn.sigmoid(gates)


def published_stack(
    params: Params, u: jax.Array, starts: jax.Array, initial: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Apply a stack of layers: u (T, B, H), initial (B, L, P) complex64 -> (last states, y (T, B, H))."""
    finals = []
    for i in range(initial.shape[1]):
        layer = {name: leaf[i] for name, leaf in params.items()}
        final, y = published_layer(layer, u, starts, initial[:, i])
        u = gate(layer, u, y)
        finals.append(final)
    return jnp.stack(finals, axis=1), u


def published_step(
    params: Params, u: jax.Array, starts: jax.Array, state: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Take one step of the stack, discretised anew: u (B, H), starts (B,), state (B, L, P) complex64.

    The recurrence is written out, where the paper's program runs its scan over two elements: the comparison
    is with the published parameters and arithmetic, not with the overhead of a scan of one step.
    """
    finals = []
    for i in range(state.shape[1]):
        layer = {name: leaf[i] for name, leaf in params.items()}
        decay, into, out = discretise(layer)
        carried = jnp.where(starts[:, None], 0, decay * state[:, i])
        final = carried + jax.vmap(lambda u_b, into=into: into @ u_b)(u)
        y = jax.vmap(lambda x_b, out=out: 2 * (out @ x_b).real)(final) + layer["D"] * u
        u = gate(layer, u, y)
        finals.append(final)
    return jnp.stack(finals, axis=1), u
