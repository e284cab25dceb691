"""The minimal gated recurrent unit (Feng et al. 2024, arXiv 2410.01201) with resets."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from s5_adapters.core.chunks import GATES
from s5_adapters.core.memory import Params, register_memory
from s5_adapters.core.rows import dense
from s5_adapters.core.scan import linear_recurrence
from s5_adapters.core.scan_methods import VARYING_METHODS
from s5_adapters.core.stack import Stack


@register_memory("mingru")
@dataclass(frozen=True, kw_only=True)
class MinGRU(Stack):
    """A stack of minimal GRUs, whose gates see the input and not the state (section 3.1).

        z_t = sigmoid(W_z u_t + b_z),    h_t = (1 - z_t) h_{t-1} + z_t (W_h u_t + b_h)

    The state is one float32 array ``(batch, n_layers, d_model)``.
    """

    methods: ClassVar = VARYING_METHODS

    @property
    def layer_state_shape(self) -> tuple[int]:
        """``(d_model,)``."""
        return (self.d_model,)

    def init_layer(self, keys: Array) -> dict[str, Array]:
        """Make ``kernel (H, 2H)``, ``bias (2H,)``: those of z, then those of the candidate."""
        shape = (self.d_model, 2 * self.d_model)
        kernel = nn.initializers.lecun_normal()(keys[0], shape, jnp.float32)
        return {"kernel": kernel, "bias": jnp.zeros(shape[1], jnp.float32)}

    def layer_sequence(
        self, layer: Params, state: Array, u: Array, episode_starts: Array | None
    ) -> tuple[Array, Array]:
        """Run over a sequence. See ``Stack.layer_sequence``."""
        products = checkpoint_name(dense(u, layer["kernel"], layer["bias"]), GATES)
        update, candidate = jnp.split(products, 2, axis=-1)
        states = linear_recurrence(
            jax.nn.sigmoid(-update),  # 1 - z, without cancellation
            jax.nn.sigmoid(update) * candidate,
            episode_starts,
            state,
            method=self.method,
        )
        return states[-1], states
