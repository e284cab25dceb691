"""PPO's learner, which learns from the steps that count and from no others."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import tree
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.common import AddTimeDimToBatchAndZeroPad
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.learner import AddOneTsToEpisodesAndTruncate
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.spaces.space_utils import BatchedNdArray

from s5_adapters.torch_bridge.rates import make_scaled_optimizer

__all__ = [
    "AddOneStep",
    "DropRowsThatCountNothing",
    "S5PPOTorchLearner",
    "SplitIntoRows",
    "StandardizeAdvantages",
    "standardize",
]

LEAST_DEVIATION = 1e-4
"""RLlib's own bound."""


class S5PPOTorchLearner(PPOTorchLearner):
    """`PPOTorchLearner` with pieces of its own in the pipeline that makes batches of episodes.

    A module's frozen parts and learning rates (`freeze`, `lr_scales`, `dynamics_lr_scale`) are kept to.

    `AddOneStep` and `SplitIntoRows` in the places of RLlib's pieces, whose work they do in less time; behind
    RLlib's advantage estimation `StandardizeAdvantages` and `DropRowsThatCountNothing`. What a user puts into
    the pipeline (`training(learner_connector=...)`) stays where it is. One without RLlib's default pieces is
    left alone.
    """

    def get_parameters(self, module: Any) -> list[Any]:
        """Return the parameters that learn: RLlib asks every one of these for a gradient."""
        return [parameter for parameter in super().get_parameters(module) if parameter.requires_grad]

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Make Adam as RLlib does, with a group for each learning rate."""
        modules: Any = self._module
        module = modules[module_id]
        scales = module.parameter_scales() if hasattr(module, "parameter_scales") else {}
        if set(scales.values()) <= {1.0}:
            super().configure_optimizers_for_module(module_id, config)
            return
        parameters = self.get_parameters(module)
        scaled = ((parameter, scales.get(id(parameter), 1.0)) for parameter in parameters)
        optimizer = make_scaled_optimizer(torch.optim.Adam, scaled)
        self.register_optimizer(
            module_id=module_id, optimizer=optimizer, params=parameters, lr_or_lr_schedule=config.lr
        )

    def build(self) -> None:
        """Build the pipeline; RLlib calls this once."""
        super().build()
        if self._learner_connector is not None and self.config.add_default_connectors_to_learner_pipeline:
            pieces = self._learner_connector.connectors
            for place, piece in enumerate(pieces):
                if type(piece) is AddOneTsToEpisodesAndTruncate:
                    pieces[place] = AddOneStep()
                elif type(piece) is AddTimeDimToBatchAndZeroPad:
                    pieces[place] = SplitIntoRows(as_learner_connector=True)
            self._learner_connector.append(StandardizeAdvantages())
            self._learner_connector.append(DropRowsThatCountNothing())


class AddOneStep(AddOneTsToEpisodesAndTruncate):
    """RLlib's piece, which adds its mask and its two flags to the batch as an array for each episode.

    RLlib adds them step by step, and step by step they are later put into rows. The batch is the same.
    """

    @staticmethod
    def add_n_batch_items(
        batch: dict[str, Any],
        column: str,
        items_to_add: Any,
        num_items: int,
        single_agent_episode: Any = None,
    ) -> None:
        """Add flags, `num_items` bool, as one array."""
        flags = np.array(items_to_add, np.bool_)
        ConnectorV2.add_n_batch_items(batch, column, flags, num_items, single_agent_episode)


class SplitIntoRows(AddTimeDimToBatchAndZeroPad):
    """RLlib's piece, which here splits a column that is one array for each episode without a loop over steps.

    All others (observations, which may be nested, what is still a list, several modules) are left to RLlib.
    The rows are the same.
    """

    def __call__(self, *, rl_module: Any, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Split `(steps, ...)` into a list of `(max_seq_len, ...)`, zeros after the end, for each episode."""
        rows: dict[str, Any] = {}
        if rl_module.is_stateful() and Columns.STATE_IN not in batch:
            for name in set(batch) - {Columns.OBS, Columns.INFOS}:
                if all(len(key) == 1 and _is_one_array(items) for key, items in batch[name].items()):
                    length = self._get_max_seq_len(rl_module)
                    rows[name] = {key: _split(items[0], length) for key, items in batch.pop(name).items()}
        others: dict[str, Any] = super().__call__(rl_module=rl_module, batch=batch, **kwargs)
        return others | rows


def _is_one_array(items: list[Any]) -> bool:
    return len(items) == 1 and isinstance(items[0], BatchedNdArray)


def _split(steps: np.ndarray, length: int) -> list[np.ndarray]:
    rows = -(-len(steps) // length)
    padded = np.zeros((rows * length, *steps.shape[1:]), steps.dtype)
    padded[: len(steps)] = steps
    return list(padded.reshape(rows, length, *steps.shape[1:]))


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


class DropRowsThatCountNothing(ConnectorV2):
    """Take the rows out of the batch that hold no step of the loss mask, once advantages are estimated.

    An episode, or piece of one, that fills its rows has a row more, for the step that RLlib appends: its
    value is needed before, but every mean of the loss is over the mask. Of the other rows, `seq_lens` becomes
    the number of steps that count, so that a minibatch holds `minibatch_size` of them.
    """

    def __call__(self, *, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Cut every column, `(B, ...)`, of every module with a loss mask `(B, T)` or `(B,)`."""
        for columns in batch.values():
            if Columns.LOSS_MASK not in columns:
                continue
            mask = columns[Columns.LOSS_MASK].bool()
            counted = mask.reshape(len(mask), -1).sum(1)
            rows = counted.nonzero()[:, 0]
            if not len(rows):
                continue
            if Columns.SEQ_LENS in columns:
                columns[Columns.SEQ_LENS] = counted.to(columns[Columns.SEQ_LENS].dtype)
            if len(rows) < len(mask):
                for name, column in columns.items():
                    columns[name] = _take(column, rows)
        return batch


def _take(column: Any, rows: torch.Tensor) -> Any:
    if isinstance(column, list):  # INFOS: RLlib keeps them as they are
        return [column[row] for row in rows.tolist()]
    return tree.map_structure(lambda leaf: leaf[rows], column)


def standardize(advantages: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Standardise advantages over the steps where `mask`, bool and of their shape, is true."""
    mask = mask.bool()
    counted = advantages[mask]
    if not len(counted):
        return torch.zeros_like(advantages)
    scale = counted.std(correction=0).clamp(min=LEAST_DEVIATION)
    return torch.where(mask, (advantages - counted.mean()) / scale, torch.zeros_like(advantages))
