"""One state space layer with real matrices: into the state, through time, out of it.

Everything is real arithmetic: a complex number is a pair (see ``planar``), the complex projections into and
out of the state are one real matrix product each over (time x batch) rows, and only the diagonal recurrence
walks through time (Smith et al. 2023, arXiv 2208.04933, eq. 2, with resets as in Lu et al. 2023, arXiv
2303.03982).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import struct
from jax import Array

from s5_adapters.core.checks import integer
from s5_adapters.core.memories.memory import Params
from s5_adapters.core.memories.stack import Stack
from s5_adapters.core.recurrence.scan import AUTO, resettable_scan
from s5_adapters.core.shapes import Bool, Float
from s5_adapters.core.xla import rows

Pair = tuple[Array, Array]
"""A state's real and imaginary part."""


@dataclass(frozen=True, kw_only=True)
class DiagonalStack(Stack):
    """A stack of linear layers with P complex lanes each and one decay for all steps: S5, LRU.

        x_t = decay x_{t-1} + B_bar u_t,    y_t = Re(C_bar x_t) + D u_t

    A subclass supplies the parameters, and what ``PreparedLayer`` is made of. The state is a pair (real part,
    imaginary part) of float32 arrays ``(batch, n_layers, P)``.
    """

    @classmethod
    def policy_defaults(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Add a ``d_state`` as large as d_model, rounded up to whole blocks of pairs, where there is one."""
        defaults = super().policy_defaults(config)
        if "d_state" in cls.__dataclass_fields__:
            multiple = 2 * integer("n_blocks", config.get("n_blocks", 1))
            defaults["d_state"] = -(-integer("d_model", config["d_model"]) // multiple) * multiple
        return defaults

    @property
    @abstractmethod
    def lanes(self) -> int:
        """P, the number of complex numbers in one layer's state."""

    @abstractmethod
    def prepare_layer(self, params: Params) -> PreparedLayer:
        """Make the decay, and pack the matrices."""

    @property
    def layer_state_shape(self) -> tuple[tuple[int], tuple[int]]:
        """The real and the imaginary part, ``(P,)`` each."""
        return (self.lanes,), (self.lanes,)

    def split(self, state: Pair) -> list[Array]:
        """Turn the pair of ``(B, n_layers, P)`` arrays into ``(B, 2, P)`` arrays, a layer each."""
        re, im = state
        return [jnp.stack([re[:, i], im[:, i]], axis=1) for i in range(self.n_layers)]

    def join(self, states: list[Array]) -> Pair:
        """Undo ``split``."""
        stacked = jnp.stack(states, axis=1)
        return stacked[:, :, 0], stacked[:, :, 1]

    def layer_sequence(
        self,
        layer: PreparedLayer,
        state: Float[Array, "B 2 P"],
        u: Float[Array, "T B H"],
        episode_starts: Bool[Array, "T B"] | None,
    ) -> tuple[Float[Array, "B 2 P"], Float[Array, "T B H"]]:
        """Run over a sequence, from a state ``(B, 2, P)`` to another. See ``Stack.layer_sequence``."""
        return layer_sequence(layer, state, u, episode_starts, method=self.method)

    def layer_step(
        self, layer: PreparedLayer, state: Pair, u: Float[Array, "B H"], episode_starts: Bool[Array, "B"]
    ) -> tuple[Pair, Float[Array, "B H"]]:
        """Run over one step. See ``Stack.layer_step``."""
        return layer_step(layer, state, u, episode_starts)


@struct.dataclass
class PreparedLayer:
    """One layer, discretised, its matrices packed into real ones.

    Attributes:
        decay: ``(2, P)``.
        into_state: ``(H, 2P)``.
        out_of_state: ``(2P, H)``.
        feedthrough: ``(H,)``.

    """

    decay: Array
    into_state: Array
    out_of_state: Array
    feedthrough: Array


def layer_sequence(
    layer: PreparedLayer,
    initial: Float[Array, "B 2 P"],
    u: Float[Array, "T B H"],
    episode_starts: Bool[Array, "T B"] | None,
    *,
    method: str = AUTO,
) -> tuple[Float[Array, "B 2 P"], Float[Array, "T B H"]]:
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
    layer: PreparedLayer, state: Pair, u: Float[Array, "B H"], episode_starts: Bool[Array, "B"]
) -> tuple[Pair, Float[Array, "B H"]]:
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
