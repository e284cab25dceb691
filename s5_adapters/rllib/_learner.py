"""PPO's learner, with advantages standardised over the steps that count."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing

__all__ = ["S5PPOTorchLearner", "StandardizeAdvantages", "standardize"]

LEAST_DEVIATION = 1e-4
"""RLlib's own bound."""


class S5PPOTorchLearner(PPOTorchLearner):
    """`PPOTorchLearner` with `StandardizeAdvantages` behind RLlib's own advantage estimation.

    What a user puts into the pipeline (`training(learner_connector=...)`) stays before it. A pipeline without
    RLlib's default pieces is left alone.
    """

    def build(self) -> None:
        """Build the pipeline; RLlib calls this once."""
        super().build()
        if self._learner_connector is not None and self.config.add_default_connectors_to_learner_pipeline:
            self._learner_connector.append(StandardizeAdvantages())


class StandardizeAdvantages(ConnectorV2):
    """Standardise each module's advantages over the steps of its loss mask, and set the others to 0.

    RLlib (2.60) takes mean and deviation over every step, that one included which it appends to each episode
    or piece of one for the value after its end. No loss reads that step's residual, which runs from the end
    of one episode into the start of the next and can be of the size of a whole return.
    """

    def __call__(self, *, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Replace `advantages`, `(B, T)` or `(B,)`, of every module that has them and a mask."""
        for columns in batch.values():
            if Postprocessing.ADVANTAGES in columns and Columns.LOSS_MASK in columns:
                advantages, mask = columns[Postprocessing.ADVANTAGES], columns[Columns.LOSS_MASK]
                columns[Postprocessing.ADVANTAGES] = standardize(advantages, mask)
        return batch


def standardize(advantages: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Advantages of mean 0 and deviation 1 over the steps where `mask`, bool and of their shape, is true."""
    mask = mask.bool()
    counted = advantages[mask]
    if not len(counted):
        return torch.zeros_like(advantages)
    scale = counted.std(correction=0).clamp(min=LEAST_DEVIATION)
    return torch.where(mask, (advantages - counted.mean()) / scale, torch.zeros_like(advantages))
