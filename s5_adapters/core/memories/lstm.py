"""A stack of long short-term memories (Hochreiter and Schmidhuber 1997): flax's cell, with resets."""

from dataclasses import dataclass

from flax import linen as nn

from s5_adapters.core.memories.cells import StackedCells
from s5_adapters.core.memories.memory import register_memory
from s5_adapters.core.xla.initializers import orthogonal


@register_memory("lstm")
@dataclass(frozen=True, kw_only=True)
class LSTM(StackedCells):
    """A stack of ``flax.linen.OptimizedLSTMCell``.

    The state is the pair (cell, hidden) of float32 arrays ``(batch, n_layers, d_model)``.
    """

    @property
    def cell(self) -> nn.OptimizedLSTMCell:
        """One cell of width d_model."""
        return nn.OptimizedLSTMCell(self.d_model, recurrent_kernel_init=orthogonal())

    @property
    def state_shape(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """``(n_layers, d_model)`` twice."""
        return (self.n_layers, self.d_model), (self.n_layers, self.d_model)
