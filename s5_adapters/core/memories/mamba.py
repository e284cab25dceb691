"""Mamba's selective state space model (Gu and Dao 2023, arXiv 2312.00752) with resets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from s5_adapters.core.checks import integer, positive
from s5_adapters.core.memories.memory import Params, register_memory
from s5_adapters.core.memories.stack import Stack
from s5_adapters.core.recurrence.convolution import causal_convolution
from s5_adapters.core.recurrence.methods import VARYING_METHODS
from s5_adapters.core.recurrence.scan import linear_recurrence
from s5_adapters.core.shapes import Bool, Float
from s5_adapters.core.xla import rows
from s5_adapters.core.xla.platform import default_platform

CPU_ROWS: Final = 256
"""Rows of a chunk on a CPU, a quarter of the other stacks': the arrays between two products are N times as
wide. At 1,024 steps of 8 sequences, 2 x 64, the gradient takes less than half the time."""


class MambaState(NamedTuple):
    """The state of a layer or, with an axis ``n_layers`` after the batch, of a stack; float32."""

    convolution: Array
    """``(batch, d_conv - 1, E)``: the convolution's last inputs of this episode, the latest last."""
    ssm: Array
    """``(batch, N, E)``: the state space model's state, N numbers for each of E channels."""


@register_memory("mamba")
@dataclass(frozen=True, kw_only=True)
class Mamba(Stack):
    """A stack of Mamba blocks (figure 3, algorithm 2): E = expand * d_model channels of N = d_state numbers.

        x, z = W_in u;    x = silu(convolution(x));    dt, B, C = selected by x
        h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t,    y_t = C_t h_t + D x_t;    W_out (y * silu(z))

    dt is positive, A = -exp(log_a) negative. A reset cuts both the state and the convolution.

    Attributes:
        d_state: numbers in the state of one channel.
        d_conv: steps that the causal convolution of each channel sees, at least 2.
        expand: channels per feature.
        dt_min: smallest initial time step; time steps are drawn log-uniformly.
        dt_max: largest initial time step.

    """

    methods: ClassVar = VARYING_METHODS
    dynamics: ClassVar[tuple[str, ...]] = ("log_a", "dt_bias")

    d_state: int = 16
    d_conv: int = 4
    expand: int = 2
    dt_min: float = 0.001
    dt_max: float = 0.1
    activation: str = "none"
    norm: str = "pre"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.set_checked(
            d_state=integer("d_state", self.d_state),
            d_conv=integer("d_conv", self.d_conv, minimum=2),
            expand=integer("expand", self.expand),
            dt_min=positive("dt_min", self.dt_min),
            dt_max=positive("dt_max", self.dt_max),
        )
        if self.dt_min > self.dt_max:
            raise ValueError(f"dt_min: got {self.dt_min}, expected at most dt_max = {self.dt_max}")

    @property
    def channels(self) -> int:
        """E, the width inside a block."""
        return self.expand * self.d_model

    @property
    def dt_rank(self) -> int:
        """The rank of the map from x to dt."""
        return -(-self.d_model // 16)

    @property
    def layer_state_shape(self) -> MambaState:
        """The shapes of a layer's ``MambaState``."""
        shapes = (self.d_conv - 1, self.channels), (self.d_state, self.channels)
        return MambaState(*shapes)  # type: ignore[arg-type]

    @property
    def rows_of_a_chunk(self) -> int | None:
        """See ``Stack.rows_of_a_chunk``."""
        return CPU_ROWS if self.chunk_rows is None and default_platform() == "cpu" else self.chunk_rows

    def init_layer(self, keys: Array) -> dict[str, Array]:
        """Make the parameters: ``in_kernel (H, 2E)``, ``conv_kernel (d_conv, E)``, ``conv_bias (E,)``,
        ``select_kernel (E, R + 2N)``, ``dt_kernel (R, E)``, ``dt_bias (E,)``, ``log_a (N, E)``, ``D (E,)``,
        ``out_kernel (E, H)``, R being ``dt_rank``.
        """
        width, channels, rank, size = self.d_model, self.channels, self.dt_rank, self.d_state
        dense = nn.initializers.lecun_normal()
        select_key, kernel_key, dt_key = jax.random.split(keys[2], 3)
        low, high = np.log(self.dt_min), np.log(self.dt_max)
        dt = jnp.exp(jax.random.uniform(dt_key, (channels,), jnp.float32, minval=low, maxval=high))
        return {
            "in_kernel": dense(keys[0], (width, 2 * channels), jnp.float32),
            "conv_kernel": dense(keys[1], (self.d_conv, channels), jnp.float32),
            "conv_bias": jnp.zeros(channels, jnp.float32),
            "select_kernel": dense(select_key, (channels, rank + 2 * size), jnp.float32),
            "dt_kernel": dense(kernel_key, (rank, channels), jnp.float32),
            "dt_bias": dt + jnp.log(-jnp.expm1(-dt)),  # softplus of it is dt
            "log_a": jnp.log(jnp.tile(jnp.arange(1.0, size + 1.0, dtype=jnp.float32)[:, None], channels)),
            "D": jnp.ones(channels, jnp.float32),
            "out_kernel": dense(keys[3], (channels, width), jnp.float32),
        }

    def layer_sequence(
        self,
        layer: Params,
        state: MambaState,
        u: Float[Array, "T B H"],
        episode_starts: Bool[Array, "T B"] | None,
    ) -> tuple[MambaState, Float[Array, "T B H"]]:
        """Run over a sequence. See ``Stack.layer_sequence``."""
        x, gate = jnp.split(rows.product(u, layer["in_kernel"]), 2, axis=-1)
        kernel, bias = layer["conv_kernel"], layer["conv_bias"]
        convolution, x = causal_convolution(kernel, bias, state.convolution, x, episode_starts)
        x = nn.silu(x)
        decay, inputs, c = self._select(layer, x)
        flat = (*x.shape[:2], -1)
        states = linear_recurrence(
            decay.reshape(flat),
            inputs.reshape(flat),
            episode_starts,
            state.ssm.reshape(len(state.ssm), -1),
            method=self.method,
        ).reshape(inputs.shape)
        return MambaState(convolution, states[-1]), _read(layer, states, c, x, gate)

    def layer_step(
        self, layer: Params, state: MambaState, u: Float[Array, "B H"], episode_starts: Bool[Array, "B"]
    ) -> tuple[MambaState, Float[Array, "B H"]]:
        """Run over one step: without a loop the state is read as it is made. See ``Stack.layer_step``."""
        x, gate = jnp.split(rows.product(u, layer["in_kernel"]), 2, axis=-1)
        kernel, bias, starts = layer["conv_kernel"], layer["conv_bias"], episode_starts[None]
        convolution, convolved = causal_convolution(kernel, bias, state.convolution, x[None], starts)
        x = nn.silu(convolved[0])
        decay, inputs, c = self._select(layer, x)
        ssm = inputs + jnp.where(episode_starts[:, None, None], 0.0, decay * state.ssm)
        return MambaState(convolution, ssm), _read(layer, ssm, c, x, gate)

    def _select(self, layer: Params, x: Array) -> tuple[Array, Array, Array]:
        """Let ``x (..., E)`` choose the decays and the inputs ``(..., N, E)``, and C ``(..., N)``."""
        selected = rows.product(x, layer["select_kernel"])
        dt, b, c = jnp.split(selected, [self.dt_rank, self.dt_rank + self.d_state], axis=-1)
        dt = nn.softplus(rows.dense(dt, layer["dt_kernel"], layer["dt_bias"]))
        decay = jnp.exp(dt[..., None, :] * -jnp.exp(layer["log_a"]))
        return decay, b[..., None] * (dt * x)[..., None, :], c


def _read(layer: Params, states: Array, c: Array, x: Array, gate: Array) -> Array:
    """Read the outputs ``(..., H)`` out of ``states (..., N, E)``."""
    y = jnp.sum(c[..., None] * states, axis=-2) + rows.scale(layer["D"], x)
    return rows.product(y * nn.silu(gate), layer["out_kernel"])
