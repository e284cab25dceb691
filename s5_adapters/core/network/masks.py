"""Masks of the actions that are allowed, beside the observations."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import jax.numpy as jnp
from jax import Array

from s5_adapters.core.network.distributions import ActionSpec, Box
from s5_adapters.core.shapes import Bool, Float

MASKED: Final = -1e8
"""Logit of a masked action, and thereby its log-probability: finite, so that no gradient is NaN; its
probability is 0 exactly, as of -inf."""


class MaskedObservation(NamedTuple):
    """An observation and the actions that it allows, wherever ``ActorCritic`` takes an observation."""

    obs: Any
    """``(..., *obs_shape)``."""
    action_mask: Any
    """``(..., K)`` bool, one for each input of the distribution, True where the action is allowed. Of a
    ``MultiDiscrete`` the components' masks, one after another. Where nothing is allowed everything is."""


def split_mask(obs: Any) -> tuple[Any, Any]:
    """Return an observation without its mask, and the mask; None where there is none."""
    return (obs.obs, obs.action_mask) if isinstance(obs, MaskedObservation) else (obs, None)


def mask_inputs(
    action: ActionSpec, inputs: Float[Array, "*batch K"], action_mask: Bool[Array, "*batch K"] | None
) -> Float[Array, "*batch K"]:
    """Take the forbidden actions out of an actor head's output.

    What any distribution makes of the result gives them probability 0 and no part in the entropy; their
    log-probability is ``MASKED``, and no gradient flows to them.

    Args:
        action: the action space.
        inputs: ``(..., K)``.
        action_mask: ``(..., K)`` bool, True where allowed; None allows everything.

    Raises:
        ValueError: a mask of another shape, or of a ``Box``.

    """
    if action_mask is None:
        return inputs
    if isinstance(action, Box) or action_mask.shape != inputs.shape:
        raise ValueError(
            f"action_mask: got shape {action_mask.shape} for {action}, expected {inputs.shape} for a "
            "Discrete or MultiDiscrete"
        )
    return jnp.where(action_mask, inputs, jnp.asarray(MASKED, inputs.dtype))
