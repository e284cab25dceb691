"""What an RLModule and a model of the old API stack share: a network, its programs and its parameters."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import torch
from torch import nn

from s5_adapters.core import ActorCriticConfig
from s5_adapters.rllib._model_config import ModelConfig
from s5_adapters.rllib._network import Programs, RowNetwork, as_module
from s5_adapters.torch_bridge import Buckets, JaxModule, on_device, pad_rows, to_jax
from s5_adapters.torch_bridge.packed import PackedJit

__all__ = ["NetworkHolder"]


class NetworkHolder(nn.Module):
    """Holds a network, and becomes the one that a checkpoint of older code holds.

    Before all ecosystems shared their defaults, a `model_config` that left `n_layers` or `d_state` out meant
    the memory's own: one layer, 64 states. RLlib builds a module of the checkpoint's words and then loads
    the parameters, whose shapes tell.

    Attributes:
        network: the parameters.
    """

    network: JaxModule
    _rows: RowNetwork
    _programs: Programs
    _act_rows: Buckets
    _former: ActorCriticConfig | None = None

    def _build(self, read: ModelConfig) -> None:
        """Make the network, its parameters drawn from torch's generator."""
        self._take(read.network)
        self._former = read.former if read.former != read.network else None
        seed = np.uint32(torch.randint(2**31, ()).item())
        self.network = as_module(self._programs.init(seed))
        self._act_rows = Buckets(max_waste=4.0, exact_first=True)

    def _take(self, config: ActorCriticConfig) -> None:
        """Compute with that network from now on."""
        self._rows = RowNetwork(config)
        self._programs = Programs.of(self._rows)

    def _acted(self, program: PackedJit, state: torch.Tensor, obs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Call `act` or `step` with the rows padded to a bucket, and cut what it returns."""
        rows = len(obs)
        (padded,) = self._act_rows.fit(rows)
        state, obs = pad_rows(state, padded), pad_rows(obs, padded)
        prepared = self.network.prepared(self._programs.prepare)
        with on_device(obs.device):
            if obs.dtype == torch.uint8:
                outputs = program((prepared, to_jax(obs, "obs")), state)
            else:
                outputs = program((prepared,), state, obs)
        return tuple([output[:rows] for output in outputs])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        held = self.network.tree_in(state_dict, f"{prefix}network.")
        if held is not None and self._former is not None and self._is_former(held, self._former):
            self._take(self._former)
            for part in self.children():
                if isinstance(part, JaxModule):  # APPO's old parameters too
                    part.replace_tree(held)
        super()._load_from_state_dict(state_dict, prefix, *others)

    def _is_former(self, held: Any, former: ActorCriticConfig) -> bool:
        """Tell whether parameters have the shapes of the former network and not of this one."""
        shapes = _shapes(held)
        if shapes == _shapes(self.network.tree()):
            return False
        return bool(shapes == _shapes(jax.eval_shape(RowNetwork(former).init, np.uint32(0))))


def _shapes(params: Any) -> Any:
    """Return the pytree of a pytree's shapes."""
    return jax.tree.map(lambda leaf: tuple(leaf.shape), params)
