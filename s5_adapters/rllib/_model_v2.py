"""The network as a model of RLlib's old API stack."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from ray.rllib.models.catalog import ModelCatalog
from ray.rllib.models.torch.torch_modelv2 import TorchModelV2
from torch import nn

from s5_adapters.rllib._holder import NetworkHolder
from s5_adapters.rllib._model_config import read_model_config
from s5_adapters.rllib._process import settle_process
from s5_adapters.torch_bridge import Buckets, pad_rows

__all__ = ["S5Model"]


class S5Model(TorchModelV2, NetworkHolder):
    """Encoder, S5 (or another memory), torsos and heads, as `model={"custom_model": "s5"}`.

    `custom_model_config` holds the same keys as `S5RLModule`'s `model_config`, but for `max_seq_len`, which
    this stack keeps beside `custom_model`.

    Args:
        obs_space: the preprocessed observation space: vectors, or images with channels last.
        action_space: Discrete, MultiDiscrete or a one-dimensional Box.
        num_outputs: width of the action distribution's inputs.
        model_config: RLlib's `model` dictionary.
        name: RLlib's name of this model.
        **custom_model_config: the architecture.

    Raises:
        ValueError: an unknown key, a wrong value, or a space that does not fit.
    """

    def __init__(
        self,
        obs_space: gym.Space[Any],
        action_space: gym.Space[Any],
        num_outputs: int,
        model_config: dict[str, Any],
        name: str,
        **custom_model_config: Any,
    ) -> None:
        """See the class."""
        settle_process()
        nn.Module.__init__(self)
        TorchModelV2.__init__(self, obs_space, action_space, num_outputs, model_config, name)
        if "max_seq_len" in custom_model_config:
            raise ValueError(
                "custom_model_config: got 'max_seq_len', which the old API stack expects beside it, in "
                'model={"custom_model": "s5", "max_seq_len": ...}'
            )
        read = read_model_config(custom_model_config, obs_space, action_space)
        is_scaled = read.lr_scales or read.dynamics_lr_scale != 1
        if read.network.action_mask or read.freeze or is_scaled:
            raise ValueError(
                "action_mask, freeze, lr_scales, dynamics_lr_scale: they take the new API stack's S5RLModule"
            )
        if read.weights is not None:
            raise ValueError(
                "custom_model_config: got 'weights', which S5RLModule of the new API stack takes"
            )
        self._build(read)
        wanted = self._rows.config.action.num_inputs
        if num_outputs != wanted:
            raise ValueError(
                f"num_outputs: got {num_outputs}, expected {wanted} for {action_space}: leave "
                "custom_action_dist and free_log_std as they are"
            )
        self._sequences = Buckets(max_waste=3.0)
        self._values: torch.Tensor | None = None

    def get_initial_state(self) -> list[torch.Tensor]:  # type: ignore[override]  # Ray: lists invariant
        """Return the state before an episode, unbatched: one `(S,)` float32; none where nothing is kept."""
        size = self._rows.state.size
        return [torch.zeros(size)] if size else []

    def forward(  # type: ignore[override]  # Ray: lists invariant
        self, input_dict: dict[str, Any], state: list[torch.Tensor], seq_lens: torch.Tensor | None
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Run over rows of equal length, laid one after another.

        Args:
            input_dict: `obs`, `(B * T, *obs_shape)`.
            state: the rows' states, `[(B, S)]`.
            seq_lens: `(B,)`; only their number is used, since padding is at the end.

        Returns:
            The action distributions' inputs `(B * T, K)` and the rows' states after the last step.
        """
        obs = input_dict["obs"]
        if obs.dtype not in (torch.float32, torch.uint8):
            obs = obs.float()
        before = state[0].float() if state else obs.new_zeros((len(obs), 0), dtype=torch.float32)
        count = len(obs)
        rows = len(before)
        obs = obs.reshape(rows, -1, *obs.shape[1:])
        if obs.shape[1] == 1 and not torch.is_grad_enabled():
            after, dist_inputs, self._values = self._acted(self._programs.step, before, obs[:, 0])
        else:
            padded = self._sequences.fit(*obs.shape[:2])
            run = self._programs.sequence
            after, dist_inputs, values = run(
                self.network.tree(), pad_rows(before, padded[0]), pad_rows(obs, *padded)
            )
            dist_inputs = dist_inputs[:rows, : obs.shape[1]].reshape(count, -1)
            self._values = values[:rows, : obs.shape[1]].reshape(count)
        return dist_inputs, [after[:rows]] if state else []

    def value_function(self) -> torch.Tensor:
        """Return the values of the last `forward`, `(B * T,)`."""
        if self._values is None:
            raise RuntimeError("value_function: forward() has not been called yet")
        return self._values


ModelCatalog.register_custom_model("s5", S5Model)
