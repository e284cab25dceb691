"""A stack of gated recurrent units (Cho et al. 2014, arXiv 1406.1078): flax's cell, with resets."""

from dataclasses import dataclass

from flax import linen as nn

from s5_adapters.core.memories.cells import StackedCells
from s5_adapters.core.memories.memory import register_memory
from s5_adapters.core.xla.initializers import orthogonal


@register_memory("gru")
@dataclass(frozen=True, kw_only=True)
class GRU(StackedCells):
    """A stack of ``flax.linen.GRUCell``; the state is one float32 array ``(batch, n_layers, d_model)``."""

    @property
    def cell(self) -> nn.GRUCell:
        """One cell of width d_model."""
        return nn.GRUCell(self.d_model, recurrent_kernel_init=orthogonal())

    @property
    def state_shape(self) -> tuple[int, int]:
        """``(n_layers, d_model)``."""
        return self.n_layers, self.d_model
