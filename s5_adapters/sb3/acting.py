"""A rollout's step as one JAX program: trunk, heads, the action drawn and its log-probability.

Training takes SB3's heads and distributions as they are. A rollout takes one step at a time, where calling a
torch operation costs more than computing it, and heads and distribution are two dozen of them: a third of a
rollout's time. So the usual ones are computed with the trunk. The noise is drawn by torch, in the order in
which SB3's distributions draw it: the same seed gives the same actions.
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import torch as th
from stable_baselines3.common.distributions import (
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
)

from s5_adapters.core.distributions import DiagonalGaussian, MultiDiscrete, distribution
from s5_adapters.sb3.packed import Joined, PackedJit, parted
from s5_adapters.sb3.trunk import Pair, Trunk
from s5_adapters.sb3.unchanged import heads_are_unchanged

if TYPE_CHECKING:
    from s5_adapters.sb3.policies import S5Policy

__all__ = ["RandomState", "acting_program", "difference", "draw_noise", "head_parameters"]


def head_parameters(policy: S5Policy) -> tuple[th.Tensor, ...]:
    """Weight and bias of the action head, weight and bias of the value head, and a Gaussian's `log_std`.

    Empty where SB3's own modules must compute them: gSDE and Bernoulli, torsos in torch, and whatever a user
    put in the way (see `unchanged`).
    """
    if not heads_are_unchanged(policy):
        return ()
    nets = policy.action_net._parameters, policy.value_net._parameters
    tensors = [net[name] for net in nets for name in ("weight", "bias")]
    gaussian = type(policy.action_dist) is DiagGaussianDistribution
    return (*tensors, policy.log_std) if gaussian else tuple(tensors)


def draw_noise(policy: S5Policy, rows: int, deterministic: bool, device: th.device) -> th.Tensor:
    """What decides between actions, `(rows, width)`; `deterministic` gives what leads to the mode."""
    nvec, width = _choices(policy), policy.action_net.out_features
    if deterministic:
        return th.full((rows, width), 1.0 if nvec else 0.0, device=device)
    if not nvec:
        return th.randn(rows, width, device=device)
    return th.cat([th.empty(rows, n, device=device).exponential_() for n in nvec], dim=1)


def acting_program(policy: S5Policy) -> PackedJit:
    """The compiled step.

    Returns:
        A function `(held, pi, vf, features, starts, noise)` as `Trunk.step`, with the trunk's prepared and
        the heads' parameters joined in `held`, and `noise` from `draw_noise`. It returns actions as floats
        `(B, *action_shape)`, values `(B, 1)`, log-probabilities `(B,)`, the latents of both heads and the
        next states.
    """
    return _compiled(policy._trunk, _choices(policy), policy.action_space.shape)


def _choices(policy: S5Policy) -> tuple[int, ...]:
    """Numbers of choices of a discrete action's components; none for a Gaussian."""
    match policy.action_dist:
        case CategoricalDistribution(action_dim=n):
            return (n,)
        case MultiCategoricalDistribution(action_dims=dims):
            return tuple(dims)
    return ()


@functools.lru_cache(maxsize=64)
def _compiled(trunk: Trunk, nvec: tuple[int, ...], action_shape: tuple[int, ...]) -> PackedJit:
    def act(inputs: jax.Array, log_std: jax.Array | None, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        if log_std is not None:
            gaussian = DiagonalGaussian(inputs, jnp.broadcast_to(log_std, inputs.shape))
            actions = inputs + jnp.exp(log_std) * noise
            return actions, gaussian.log_prob(actions)
        categorical = distribution(MultiDiscrete(nvec), inputs)
        times = jnp.split(noise, list(itertools.accumulate(nvec))[:-1], axis=1)
        # As torch's multinomial: the chance divided by an exponential variable is largest at a fair draw.
        races = zip(categorical.parts, times, strict=True)
        drawn = [jnp.argmax(jax.nn.softmax(part.logits) / time, axis=1) for part, time in races]
        actions = jnp.stack(drawn, axis=1)
        return actions.astype(inputs.dtype), categorical.log_prob(actions)

    def step_with_heads(
        held: Joined,
        pi: Pair,
        vf: Pair,
        features: tuple[jax.Array, ...],
        starts: jax.Array,
        noise: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, Pair, Pair]:
        prepared, (weight, bias, value_weight, value_bias, *log_std) = parted(held)
        latent_pi, latent_vf, pi, vf = trunk.step(prepared, pi, vf, features, starts)
        actions, log_probs = act(latent_pi @ weight.T + bias, *(log_std or [None]), noise)
        values = latent_vf @ value_weight.T + value_bias
        return actions.reshape(-1, *action_shape), values, log_probs, latent_pi, latent_vf, pi, vf

    return PackedJit(step_with_heads)


class RandomState:
    """Torch's random state of the moment, on the CPU and on a device."""

    def __init__(self, device: th.device) -> None:
        """Copy it."""
        self._cuda = [device] if device.type == "cuda" else []
        self._states = th.get_rng_state(), [th.cuda.get_rng_state(d) for d in self._cuda]

    def restore(self) -> None:
        """Make torch draw again what it drew since."""
        th.set_rng_state(self._states[0])
        for device, state in zip(self._cuda, self._states[1], strict=True):
            th.cuda.set_rng_state(state, device)


def difference(policy: S5Policy, ours: list[th.Tensor], theirs: list[th.Tensor]) -> str:
    """How a compiled step differs from SB3's modules on the same latents and random numbers.

    Args:
        policy: whose step it is.
        ours: actions, values and log-probabilities by the program.
        theirs: the same by SB3's modules.

    Returns:
        Which of them differ and by how much; empty where fewer than one row in a hundred does, since two
        actions' chances may be equal up to rounding.
    """
    # Matrices are multiplied in TensorFloat-32 by JAX on a GPU, in float32 by torch.
    tolerance = 1e-4 if ours[0].device.type == "cpu" else 1e-2
    rounding = th.zeros(())
    if type(policy.action_dist) is DiagGaussianDistribution:  # a narrow one amplifies the actions' rounding
        rounding = 1e-5 * (1 + ours[0].abs().max()) * policy.log_std.neg().exp().max()
    told = []
    for name, mine, other in zip(("actions", "values", "log-probabilities"), ours, theirs, strict=True):
        if mine.shape != other.shape:
            told.append(f"{name} of shape {tuple(other.shape)}, not {tuple(mine.shape)}")
            continue
        apart = (mine - other).abs().reshape(len(mine), -1)
        slack = tolerance * (1 + other.abs().reshape(len(mine), -1))
        if name == "log-probabilities":
            slack = slack + rounding
        if 100 * int((apart > slack).any(dim=1).sum()) > len(mine):
            told.append(f"{name} by up to {float(apart.max()):.3g}")
    return ", ".join(told)
