"""The minimal gated recurrent unit (Feng et al. 2024, arXiv 2410.01201) with resets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from s5_adapters.core.checks import integer
from s5_adapters.core.memories.chunks import GATES
from s5_adapters.core.memories.memory import Params, register_memory
from s5_adapters.core.memories.stack import Stack
from s5_adapters.core.recurrence.convolution import causal_convolution
from s5_adapters.core.recurrence.methods import VARYING_METHODS
from s5_adapters.core.recurrence.scan import linear_recurrence
from s5_adapters.core.shapes import Bool, Float
from s5_adapters.core.xla.rows import dense


class MinGRUState(NamedTuple):
    """The state of a layer or, with an axis ``n_layers`` after the batch, of a stack; float32."""

    convolution: Array
    """``(batch, d_conv - 1, d_model)``: the convolution's last inputs of this episode, the latest last."""
    hidden: Array
    """``(batch, d_model)``: h."""


@register_memory("mingru")
@dataclass(frozen=True, kw_only=True)
class MinGRU(Stack):
    """A stack of minimal GRUs, whose gates see the input and not the state (section 3.1).

        v = convolution(u);    z_t = sigmoid(W_z v_t + b_z),    h_t = (1 - z_t) h_{t-1} + z_t (W_h v_t + b_h)

    The short causal convolution stands before the unit as in the paper's language models: decays between 0
    and 1 alone hardly tell three steps ago from four. A reset cuts both. Where the paper lets all gates start
    half open, they start uniformly between closed and open here, so that some units forget at once and
    others slowly.

    Attributes:
        d_conv: steps that the causal convolution of each feature sees, at least 2.

    """

    methods: ClassVar = VARYING_METHODS

    d_conv: int = 4
    norm: str = "pre"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.set_checked(d_conv=integer("d_conv", self.d_conv, minimum=2))

    @property
    def layer_state_shape(self) -> MinGRUState:
        """The shapes of a layer's ``MinGRUState``."""
        return MinGRUState((self.d_conv - 1, self.d_model), (self.d_model,))  # type: ignore[arg-type]

    def init_layer(self, keys: Array) -> dict[str, Array]:
        """Make ``conv_kernel (d_conv, H)``, ``conv_bias (H,)``, and ``kernel (H, 2H)``, ``bias (2H,)``, those
        of z before those of the candidate.
        """
        width, init = self.d_model, nn.initializers.lecun_normal()
        logits = jax.random.logistic(keys[2], (width,), jnp.float32)  # their sigmoids are uniform
        return {
            "conv_kernel": init(keys[0], (self.d_conv, width), jnp.float32),
            "conv_bias": jnp.zeros(width, jnp.float32),
            "kernel": init(keys[1], (width, 2 * width), jnp.float32),
            "bias": jnp.concatenate([logits, jnp.zeros(width, jnp.float32)]),
        }

    def layer_sequence(
        self,
        layer: Params,
        state: MinGRUState,
        u: Float[Array, "T B H"],
        episode_starts: Bool[Array, "T B"] | None,
    ) -> tuple[MinGRUState, Float[Array, "T B H"]]:
        """Run over a sequence. See ``Stack.layer_sequence``."""
        kernel, bias = layer["conv_kernel"], layer["conv_bias"]
        convolution, v = causal_convolution(kernel, bias, state.convolution, u, episode_starts)
        products = checkpoint_name(dense(v, layer["kernel"], layer["bias"]), GATES)
        update, candidate = jnp.split(products, 2, axis=-1)
        states = linear_recurrence(
            jax.nn.sigmoid(-update),  # 1 - z, without cancellation
            jax.nn.sigmoid(update) * candidate,
            episode_starts,
            state.hidden,
            method=self.method,
        )
        return MinGRUState(convolution, states[-1]), states
