"""One state space layer with real matrices: into the state, through time, out of it.

The two matrix products are one real product each over (time x batch) rows, and only the diagonal recurrence
walks through time (Smith et al. 2023, arXiv 2208.04933, eq. 2, with resets as in Lu et al. 2023, arXiv
2303.03982).
"""

import jax.numpy as jnp
from flax import struct
from jax import Array

from s5_adapters.core import rows
from s5_adapters.core.scan import AUTO, resettable_scan


@struct.dataclass
class PreparedLayer:
    """One layer, discretised, its matrices packed into real ones.

    Attributes:
        decay: ``(2, P)``.
        into_state: ``(H, 2P)``.
        out_of_state: ``(2P, H)``.
        feedthrough: ``(H,)``.
        rest: the parameters after the state space model, as they are.

    """

    decay: Array
    into_state: Array
    out_of_state: Array
    feedthrough: Array
    rest: dict[str, Array]


def layer_sequence(
    layer: PreparedLayer, initial: Array, u: Array, episode_starts: Array | None, *, method: str = AUTO
) -> tuple[Array, Array]:
    """Run one state space layer over a sequence.

    Args:
        layer: the layer.
        initial: ``(B, 2, P)``, what the first step carries in.
        u: ``(T, B, H)``.
        episode_starts: ``(T, B)`` bool, or None for no resets.
        method: the scan's method, see ``linear_recurrence``.

    Returns:
        The state after the last step ``(B, 2, P)``, and the outputs ``(T, B, H)``.

    """
    length, batch = u.shape[:2]
    inputs = rows.product(u, layer.into_state).reshape(length, *initial.shape)
    states = resettable_scan(layer.decay, inputs, episode_starts, initial, method=method)
    products = rows.product(states.reshape(length, batch, len(layer.out_of_state)), layer.out_of_state)
    return states[-1], products + rows.scale(layer.feedthrough, u)


def layer_step(
    layer: PreparedLayer, state: tuple[Array, Array], u: Array, episode_starts: Array
) -> tuple[tuple[Array, Array], Array]:
    """Run one step: real and imaginary part of the state ``(B, P)``, ``u (B, H)``, ``episode_starts (B,)`` to
    the next state and y.

    The parts stay apart, as they are stored: to bring them together would be one more small loop a layer.
    """
    re, im = (jnp.where(episode_starts[:, None], 0.0, part) for part in state)
    input_re, input_im = jnp.split(rows.product(u, layer.into_state), 2, axis=1)
    decay_re, decay_im = layer.decay
    new = decay_re * re - decay_im * im + input_re, decay_re * im + decay_im * re + input_im
    products = rows.product(jnp.concatenate(new, axis=1), layer.out_of_state)
    return new, products + layer.feedthrough * u
