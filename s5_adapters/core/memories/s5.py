"""The S5 layer and stack (Smith et al. 2023, arXiv 2208.04933) with resets (Lu et al. 2023, arXiv
2303.03982)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar, Final

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from s5_adapters.core.checks import boolean, integer, one_of, positive
from s5_adapters.core.memories.diagonal import DiagonalStack, PreparedLayer
from s5_adapters.core.memories.memory import Params, register_memory
from s5_adapters.core.recurrence import planar
from s5_adapters.core.shapes import Float

DISCRETIZATIONS: Final = ("zoh", "bilinear")
POLICY_TIME_STEPS: Final = {"dt_min": 0.01, "dt_max": 1.0}
"""A policy's initial time steps: states that remember 2 to 200 steps. The constructor's own, the paper's, are
20 to 2,000."""
MAX_REAL_PART: Final = -1e-4
"""The bound below which ``clip_eigenvalues`` keeps real parts (Goel et al. 2022, arXiv 2202.09729, 4)."""


@register_memory("s5")
@dataclass(frozen=True, kw_only=True)
class S5(DiagonalStack):
    """A stack of S5 layers.

    One layer maps ``u (T, B, H)`` to ``skip + gate(y)`` with the state space model

        x_t = exp(lambda dt) x_{t-1} + B_bar u_t,    y_t = 2 Re(C x_t) + D u_t

    of P = d_state / 2 complex states, conjugate symmetry supplying the other half.

    Attributes:
        d_state: complex state size before conjugate symmetry halves it; a multiple of ``2 * n_blocks``.
        n_blocks: number of diagonal blocks that HiPPO-N is initialised with (Smith et al., appendix B.1.1).
        discretization: ``"zoh"`` (zero-order hold) or ``"bilinear"``.
        dt_min: smallest initial time step; time steps are drawn log-uniformly.
        dt_max: largest initial time step.
        clip_eigenvalues: keep the eigenvalues' real parts below -1e-4, so that no state can grow for ever.

    """

    prepared_from: ClassVar[tuple[str, ...]] = ("log_dt", "C")
    dynamics: ClassVar[tuple[str, ...]] = ("lambda_re", "lambda_im", "log_dt")
    constant_rate_scales: ClassVar[Mapping[str, float]] = {"memory": 0.3, "dynamics": 0.1}

    d_state: int = 64
    n_blocks: int = 1
    discretization: str = "zoh"
    dt_min: float = 0.001
    dt_max: float = 0.1
    clip_eigenvalues: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.set_checked(
            d_state=integer("d_state", self.d_state),
            n_blocks=integer("n_blocks", self.n_blocks),
            dt_min=positive("dt_min", self.dt_min),
            dt_max=positive("dt_max", self.dt_max),
        )
        one_of("discretization", self.discretization, DISCRETIZATIONS)
        boolean("clip_eigenvalues", self.clip_eigenvalues)
        if self.d_state % (2 * self.n_blocks):
            raise ValueError(
                f"d_state: got {self.d_state}, expected a multiple of 2 * n_blocks = {2 * self.n_blocks}"
            )
        if self.dt_min > self.dt_max:
            raise ValueError(f"dt_min: got {self.dt_min}, expected at most dt_max = {self.dt_max}")

    @classmethod
    def policy_defaults(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a policy's S5 has where ``config`` leaves it out: state size, time steps, bounded
        eigenvalues.

        ``d_state`` is d_model, rounded up to a multiple of ``2 * n_blocks``; the initial time steps are
        ``POLICY_TIME_STEPS``. Where ``dt_max`` was said and lies below their ``dt_min``, ``dt_min`` is the
        constructor's own, the paper's.

        Args:
            config: the arguments that were said; ``d_model`` and ``n_layers`` are always among them.

        Raises:
            ValueError: a ``dt_max`` that is not positive, or a ``d_model`` or ``n_blocks`` that is no size.

        """
        time_steps = dict(POLICY_TIME_STEPS)
        if positive("dt_max", config.get("dt_max", cls.dt_max)) < time_steps["dt_min"]:
            time_steps["dt_min"] = cls.dt_min
        return super().policy_defaults(config) | time_steps | {"clip_eigenvalues": True}

    @property
    def lanes(self) -> int:
        """P, the number of complex numbers in one layer's state."""
        return self.d_state // 2

    def param_shapes(self, width: int) -> Any:
        """Return ``init``'s shapes, see ``Memory.param_shapes``: any blocks' are those of the smallest, which
        are diagonalised at once.
        """
        smallest = replace(self, n_blocks=self.lanes)
        return jax.eval_shape(lambda key: smallest.init(key, width), jax.random.key(0))

    def init_layer(self, keys: Array) -> dict[str, Array]:
        """Make ``lambda_re, lambda_im, log_dt (P,)``, ``B (H, 2, P)``, ``C (2, P, H)``, ``D (H,)``."""
        eigenvalues, basis = (_real_pair(x) for x in block_hippo(self.d_state, self.n_blocks))
        basis_re, basis_im = basis
        width, lanes = self.d_model, self.lanes

        real_b = jax.random.normal(keys[0], (width, self.d_state), jnp.float32) / jnp.sqrt(width)
        b = jnp.stack([real_b @ basis_re, -(real_b @ basis_im)], axis=1)
        c = jax.random.normal(keys[1], (2, self.d_state, width), jnp.float32) / jnp.sqrt(2 * self.d_state)
        c_re = basis_re.T @ c[0] - basis_im.T @ c[1]
        c_im = basis_re.T @ c[1] + basis_im.T @ c[0]
        log_low, log_high = np.log(self.dt_min), np.log(self.dt_max)
        return {
            "lambda_re": eigenvalues[0],
            "lambda_im": eigenvalues[1],
            "log_dt": jax.random.uniform(keys[2], (lanes,), jnp.float32, minval=log_low, maxval=log_high),
            "B": b,
            "C": jnp.stack([c_re, c_im]),
            "D": jax.random.normal(keys[3], (width,), jnp.float32),
        }

    def prepare_layer(self, params: Params) -> PreparedLayer:
        """Discretise the layer and pack its matrices."""
        decay, gain = self.discretize(params["lambda_re"], params["lambda_im"], params["log_dt"])
        b = planar.multiply(gain, params["B"])
        c = params["C"]
        return PreparedLayer(
            decay=decay,
            into_state=b.reshape(self.d_model, 2 * self.lanes),
            out_of_state=jnp.concatenate([2.0 * c[0], -2.0 * c[1]]),
            feedthrough=params["D"],
        )

    def discretize(
        self, lambda_re: Float[Array, "P"], lambda_im: Float[Array, "P"], log_dt: Float[Array, "P"]
    ) -> tuple[Float[Array, "2 P"], Float[Array, "2 P"]]:
        """Return the decay and the factor that turns B into B_bar, each ``(2, P)``, for ``(P,)`` parameters.

        Zero-order hold: exp(lambda dt) and (exp(lambda dt) - 1) / lambda (Smith et al., eq. 6), the latter by
        ``expm1``, whose gradient keeps its digits for small time steps. Bilinear: (1 + z) / (1 - z) and dt /
        (1 - z) with z = lambda dt / 2.
        """
        if self.clip_eigenvalues:
            lambda_re = jnp.minimum(lambda_re, MAX_REAL_PART)
        eigenvalues, dt = jnp.stack([lambda_re, lambda_im]), jnp.exp(log_dt)
        if self.discretization == "zoh":
            z = eigenvalues * dt
            return planar.exp(z), planar.divide(planar.expm1(z), eigenvalues)
        one = jnp.stack([jnp.ones_like(dt), jnp.zeros_like(dt)])
        half = 0.5 * dt * eigenvalues
        return planar.divide(one + half, one - half), planar.divide(dt * one, one - half)


def _real_pair(x: np.ndarray[Any, Any]) -> Array:
    return jnp.asarray(np.stack([x.real, x.imag]), jnp.float32)


def hippo_normal(size: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Diagonalise HiPPO-N, the normal part of the HiPPO-LegS matrix (Smith et al., appendix B.1.1).

    HiPPO-LegS has ``-sqrt(2n+1) sqrt(2k+1)`` below and ``-(n+1)`` on its diagonal (Gu et al. 2020, arXiv
    2008.07669); adding the rank-one term ``p p^T`` with ``p_n = sqrt(n + 1/2)`` leaves -1/2 on the diagonal
    plus a skew-symmetric matrix.

    Args:
        size: the matrix's size N, even.

    Returns:
        The N / 2 eigenvalues with negative imaginary part, complex128 ``(N/2,)``, and their unit eigenvectors
        ``(N, N/2)``.

    """
    n = np.arange(size)
    root = np.sqrt(2 * n + 1)
    skew = -0.5 * (np.tril(np.outer(root, root), -1) - np.triu(np.outer(root, root), 1))
    imaginary, vectors = np.linalg.eigh(-1j * skew)
    half = size // 2
    return -0.5 + 1j * imaginary[:half], vectors[:, :half]


@cache
def block_hippo(d_state: int, n_blocks: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Put copies of HiPPO-N on a diagonal: eigenvalues ``(P,)``, eigenvectors ``(d_state, P)``."""
    eigenvalues, vectors = hippo_normal(d_state // n_blocks)
    return np.tile(eigenvalues, n_blocks), np.kron(np.eye(n_blocks), vectors)
