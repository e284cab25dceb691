"""SB3's distributions over discrete actions, some of which are forbidden."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch as th
from stable_baselines3.common.distributions import (
    CategoricalDistribution,
    Distribution,
    MultiCategoricalDistribution,
)

from s5_adapters.core.network.masks import MASKED

__all__ = ["MaskedCategorical", "MaskedMultiCategorical", "action_masks_of", "masked_distribution"]

if TYPE_CHECKING:
    _Base = CategoricalDistribution  # what follows it among the bases
else:
    _Base = object


class _Masked(_Base):
    """The base of both. It goes before SB3's distribution among the bases.

    Attributes:
        action_masks: `(batch, K)` bool, True where an action is allowed, of a MultiDiscrete the components'
            masks one after another; None allows everything.
    """

    action_masks: th.Tensor | None = None

    def proba_distribution(self, action_logits: th.Tensor) -> Self:
        """Take logits `(batch, K)`; those of forbidden actions become `MASKED`."""
        if self.action_masks is not None:
            action_logits = action_logits.masked_fill(~self.action_masks, MASKED)
        super().proba_distribution(action_logits)
        return self


class MaskedCategorical(_Masked, CategoricalDistribution):
    """Actions of a Discrete space."""


class MaskedMultiCategorical(_Masked, MultiCategoricalDistribution):  # type: ignore[misc]  # by SB3's types
    """Actions of a MultiDiscrete space, or of a MultiBinary, whose bits are two choices each."""


def masked_distribution(distribution: Distribution) -> MaskedCategorical | MaskedMultiCategorical:
    """Return the maskable distribution of the same actions.

    Raises:
        ValueError: actions that are not discrete.
    """
    match distribution:
        case CategoricalDistribution(action_dim=n):
            return MaskedCategorical(n)
        case MultiCategoricalDistribution(action_dims=dims):
            choices: Any = list(dims)  # SB3 declares the number of components
            return MaskedMultiCategorical(choices)
    raise ValueError(
        f"action masks: got actions for {type(distribution).__name__}, expected Discrete, MultiDiscrete or "
        "MultiBinary"
    )


def action_masks_of(distribution: Any) -> th.Tensor | None:
    """Return the masks that a distribution holds now, None where it holds or knows none."""
    masks: th.Tensor | None = getattr(distribution, "action_masks", None)
    return masks
