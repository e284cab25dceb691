"""The linear recurrent unit (Orvieto et al. 2023, arXiv 2303.06349) with resets."""

import math
from dataclasses import dataclass
from typing import ClassVar, Final

import jax
import jax.numpy as jnp
from jax import Array

from s5_adapters.core.checks import integer, number, positive
from s5_adapters.core.memories.diagonal import DiagonalStack, PreparedLayer
from s5_adapters.core.memories.memory import Params, register_memory
from s5_adapters.core.recurrence import planar

EPSILON: Final = 2.0**-23
"""How far |lambda|**2 starts from 0 and 1 at least: the logarithms of neither end are finite."""


@register_memory("lru")
@dataclass(frozen=True, kw_only=True)
class LRU(DiagonalStack):
    """A stack of linear recurrent units.

    One layer maps ``u (T, B, H)`` to ``skip + gate(y)`` with

        x_t = lambda x_{t-1} + exp(gamma_log) (B u_t),    y_t = Re(C x_t) + D u_t
        lambda = exp(-exp(nu_log) + i exp(theta_log))

    so that ``|lambda| < 1`` whatever is learned (section 3.3). It starts uniformly on a ring of the complex
    plane, and the normalisation with ``gamma = sqrt(1 - |lambda|**2)``, so that every lane has the same
    variance under white noise (section 3.4); gamma is then learned too. The state has P = d_state / 2 complex
    lanes, the paper's N.

    Attributes:
        d_state: real numbers in a layer's state, an even number.
        r_min: inner radius of the ring, at least 0.
        r_max: outer radius of the ring, at most 1.
        max_phase: largest initial phase, in radians; small ones remember slow changes.

    """

    prepared_from: ClassVar[tuple[str, ...]] = ("gamma_log", "C")
    dynamics: ClassVar[tuple[str, ...]] = ("nu_log", "theta_log")

    d_state: int = 64
    r_min: float = 0.0
    r_max: float = 1.0
    max_phase: float = 2.0 * math.pi

    def __post_init__(self) -> None:
        super().__post_init__()
        self.set_checked(
            d_state=integer("d_state", self.d_state),
            r_min=number("r_min", self.r_min, minimum=0.0, maximum=1.0),
            r_max=number("r_max", self.r_max, minimum=0.0, maximum=1.0),
            max_phase=positive("max_phase", self.max_phase),
        )
        if self.d_state % 2:
            raise ValueError(f"d_state: got {self.d_state}, expected an even number")
        if self.r_min >= self.r_max:
            raise ValueError(f"r_min: got {self.r_min}, expected less than r_max = {self.r_max}")

    @property
    def lanes(self) -> int:
        """P, the number of complex numbers in one layer's state."""
        return self.d_state // 2

    def init_layer(self, keys: Array) -> dict[str, Array]:
        """Make ``nu_log, theta_log, gamma_log (P,)``, ``B (H, 2, P)``, ``C (2, P, H)``, ``D (H,)``."""
        width, lanes = self.d_model, self.lanes
        area, phase = jax.random.uniform(keys[0], (2, lanes), jnp.float32, minval=EPSILON)
        square = jnp.clip(
            self.r_min**2 + area * (self.r_max**2 - self.r_min**2), EPSILON, 1.0 - EPSILON
        )  # of |lambda|
        return {
            "nu_log": jnp.log(-0.5 * jnp.log(square)),
            "theta_log": jnp.log(self.max_phase * phase),
            "gamma_log": 0.5 * jnp.log1p(-square),
            "B": jax.random.normal(keys[1], (width, 2, lanes), jnp.float32) / math.sqrt(2 * width),
            "C": jax.random.normal(keys[2], (2, lanes, width), jnp.float32) / math.sqrt(lanes),
            "D": jax.random.normal(keys[3], (width,), jnp.float32),
        }

    def prepare_layer(self, params: Params) -> PreparedLayer:
        """Make lambda, and pack the matrices."""
        c = params["C"]
        return PreparedLayer(
            decay=planar.exp(jnp.stack([-jnp.exp(params["nu_log"]), jnp.exp(params["theta_log"])])),
            into_state=(jnp.exp(params["gamma_log"]) * params["B"]).reshape(self.d_model, 2 * self.lanes),
            out_of_state=jnp.concatenate([c[0], -c[1]]),
            feedthrough=params["D"],
        )
