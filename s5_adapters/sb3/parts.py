"""The policy's memories by `MlpLstmPolicy`'s names, to freeze, group or count their parameters."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import nn

from s5_adapters.sb3.state import StateLayout
from s5_adapters.torch_bridge import JaxModule

__all__ = ["MemoryPart"]

MAX_STOCK_STATE = 16_384
"""Numbers in one environment's state above which storing it at every step, as the stock buffer does, is
refused.
"""


class MemoryPart(nn.Module):
    """One memory's parameters, the policy's own and not copies, under their names within the memory.

    It is made anew whenever the policy is asked for it, since the policy's parameters may be replaced, and it
    belongs to no module: no parameter of the policy has two names.

    Args:
        trunk: where the parameters are.
        name: the memory's, by which its parameters' names begin.
        layout: its state's.
    """

    def __init__(self, trunk: JaxModule, name: str, layout: StateLayout) -> None:
        """Take the parameters."""
        super().__init__()
        self._layout = layout
        for path, parameter in trunk.named_parameters():
            if path.startswith(f"{name}/"):
                self.register_parameter(path.removeprefix(f"{name}/"), parameter)
        self.training = trunk.training

    @property
    def num_layers(self) -> int:
        """Layers of the state: with `hidden_size` what the stock `RecurrentPPO` sizes its buffer by.

        Raises:
            ValueError: a state too large to be stored at every step.
        """
        self._check_size()
        return self._layout.shape[0]

    @property
    def hidden_size(self) -> int:
        """Width of the state; ValueError as for `num_layers`."""
        self._check_size()
        return self._layout.shape[1]

    def _check_size(self) -> None:
        size, name = self._layout.size, self._layout.memory.name
        if size > MAX_STOCK_STATE:
            raise ValueError(
                f"memory {name!r} has a state of {size} numbers, and RecurrentPPO stores one "
                f"for every step (at most {MAX_STOCK_STATE} numbers): use s5_adapters.sb3.S5RecurrentPPO"
            )

    def forward(self, *_: Any) -> NoReturn:
        """Raise: the memory runs in JAX, with what stands around it."""
        raise TypeError(
            "S5Policy's memory cannot be called by itself: it runs in JAX, within the policy's calls"
        )

    def _refuse_hook(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            "S5Policy's memory runs in JAX, which calls no hooks: hook the features extractor, action_net, "
            "value_net or mlp_extractor's networks"
        )

    register_forward_hook = register_forward_pre_hook = _refuse_hook
    register_full_backward_hook = register_full_backward_pre_hook = _refuse_hook
