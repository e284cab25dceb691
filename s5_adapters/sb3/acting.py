"""A rollout's step as one JAX program: trunk, heads, the action drawn and its log-probability.

Training takes SB3's heads and distributions as they are. A rollout takes one step at a time, where calling a
torch operation costs more than computing it, and heads and distribution are two dozen of them: a third of a
rollout's time. So the usual ones are computed with the trunk. The noise is drawn by torch, in the order in
which SB3's distributions draw it: the same seed gives the same actions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import torch as th
from stable_baselines3.common.distributions import (
    CategoricalDistribution,
    MultiCategoricalDistribution,
)

from s5_adapters.core.network.distributions import (
    DiagonalGaussian,
    MultiCategorical,
    MultiDiscrete,
    distribution,
)
from s5_adapters.core.network.masks import mask_inputs
from s5_adapters.core.xla.shared import Shared
from s5_adapters.sb3.masked import action_masks_of
from s5_adapters.sb3.state import Pair
from s5_adapters.sb3.trunk import FlatTrunk
from s5_adapters.torch_bridge.packed import Joined, PackedJit, unjoin

if TYPE_CHECKING:
    from s5_adapters.sb3.policies import S5Policy

__all__ = ["Acting", "acting_program", "draw_noise"]


def draw_noise(policy: S5Policy, rows: int, deterministic: bool, device: th.device) -> th.Tensor:
    """Draw what decides between actions, `(rows, width)`; `deterministic` gives what leads to the mode.

    It is infinite where the policy's distribution forbids an action.
    """
    noise = _draw_noise(policy, rows, deterministic, device)
    masks = action_masks_of(policy.action_dist)
    return noise if masks is None else noise.masked_fill(~masks, math.inf)


def _draw_noise(policy: S5Policy, rows: int, deterministic: bool, device: th.device) -> th.Tensor:
    nvec = _choices(policy)
    width = sum(nvec) or policy.action_net.out_features
    if deterministic:
        return th.full((rows, width), 1.0 if nvec else 0.0, device=device)
    if not nvec:
        return th.randn(rows, width, device=device)
    drawn = [th.empty(rows, n, device=device).exponential_() for n in nvec]
    return drawn[0] if len(drawn) == 1 else th.cat(drawn, dim=1)


def acting_program(policy: S5Policy) -> PackedJit:
    """Return the compiled step.

    Returns:
        A function `(held, pi, vf, features, starts, noise)` as `FlatTrunk.step`, with the trunk's prepared
        and the heads' parameters joined in `held`, and `noise` from `draw_noise`. It returns actions as
        floats `(B, *action_shape)`, values `(B, 1)`, log-probabilities `(B,)`, the latents of both heads side
        by side and the next states.
    """
    if policy._acting is None:
        policy._acting = Acting.of(policy._trunk, _choices(policy), policy.action_space.shape)
    return policy._acting.run


def _choices(policy: S5Policy) -> tuple[int, ...]:
    """Return the numbers of choices of a discrete action's components; none for a Gaussian."""
    match policy.action_dist:
        case CategoricalDistribution(action_dim=n):
            return (n,)
        case MultiCategoricalDistribution(action_dims=dims):
            return tuple(dims)
    return ()


class Acting(Shared):
    """The compiled step of a trunk with heads for these actions.

    Args:
        trunk: encoder, memory and torsos.
        nvec: numbers of choices of a discrete action's components; none for a Gaussian.
        action_shape: shape of one action.
    """

    def __init__(self, trunk: FlatTrunk, nvec: tuple[int, ...], action_shape: tuple[int, ...]) -> None:
        """Compile nothing yet."""
        super().__init__(trunk, nvec, action_shape)
        self.run = PackedJit(_step_with_heads(trunk, nvec, action_shape))


def _step_with_heads(
    trunk: FlatTrunk, nvec: tuple[int, ...], action_shape: tuple[int, ...]
) -> Callable[..., Any]:
    def act(inputs: jax.Array, log_std: jax.Array | None, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        if log_std is not None:
            gaussian = DiagonalGaussian(inputs, jnp.broadcast_to(log_std, inputs.shape))
            actions = inputs + jnp.exp(log_std) * noise
            return actions, gaussian.log_prob(actions)
        spec = MultiDiscrete(nvec)
        categorical = distribution(spec, mask_inputs(spec, inputs, jnp.isfinite(noise)))
        assert isinstance(categorical, MultiCategorical)
        times = jnp.split(noise, list(itertools.accumulate(nvec))[:-1], axis=1)
        # As torch's multinomial: the chance divided by an exponential variable is largest at a fair draw.
        races = zip(categorical.parts, times, strict=True)
        drawn = [jnp.argmax(jax.nn.softmax(part.logits) / time, axis=1) for part, time in races]
        actions = jnp.stack(drawn, axis=1)
        return actions.astype(inputs.dtype), categorical.log_prob(actions)

    def step_with_heads(
        held: Joined,
        pi: Pair,
        vf: Pair | None,
        features: tuple[jax.Array, ...],
        starts: jax.Array,
        noise: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, Pair, Pair]:
        prepared, (weight, bias, value_weight, value_bias, *rest) = unjoin(held)
        log_std = rest[0] if rest else None  # a Gaussian's
        latent_pi, latent_vf, pi, vf = trunk.step(prepared, pi, vf, features, starts)
        actions, log_probs = act(latent_pi @ weight.T + bias, log_std, noise)
        values = latent_vf @ value_weight.T + value_bias
        latents = jnp.concatenate([latent_pi, latent_vf], axis=1)
        return actions.reshape(-1, *action_shape), values, log_probs, latents, pi, vf

    return step_with_heads
