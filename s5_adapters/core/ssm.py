"""The S5 layer and stack (Smith et al. 2023, arXiv 2208.04933) with resets (Lu et al. 2023, arXiv
2303.03982).

Everything is real arithmetic: a complex number is a pair (see ``planar``), the complex projections into and
out of the state are one real matrix product each over (time x batch) rows, and only the diagonal recurrence
walks through time.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from s5_adapters.core import planar
from s5_adapters.core.checks import boolean, integer, one_of, positive
from s5_adapters.core.chunks import GATES, REMATS, run_in_chunks, step_in_groups
from s5_adapters.core.layer import PreparedLayer, layer_sequence, layer_step
from s5_adapters.core.memory import Memory, Params, State, init_projection, project, register_memory
from s5_adapters.core.recompute import after, recomputed
from s5_adapters.core.rows import dense
from s5_adapters.core.scan import AUTO
from s5_adapters.core.scan_methods import METHODS

DISCRETIZATIONS: Final = ("zoh", "bilinear")
ACTIVATIONS: Final = ("full_glu", "half_glu1", "half_glu2", "gelu")
NORMS: Final = ("none", "pre", "post")
MAX_REAL_PART: Final = -1e-4
"""What ``clip_eigenvalues`` keeps the real parts below (Goel et al. 2022, arXiv 2202.09729, section 4)."""
LAYER_NORM_EPSILON: Final = 1e-6


@register_memory("s5")
@dataclass(frozen=True, kw_only=True)
class S5(Memory):
    """A stack of S5 layers.

    One layer maps ``u (T, B, H)`` to ``skip + gate(y)`` with the state space model

        x_t = exp(lambda dt) x_{t-1} + B_bar u_t,    y_t = 2 Re(C x_t) + D u_t

    whose state has P = d_state / 2 complex lanes, conjugate symmetry supplying the other half. An input whose
    width is not d_model is brought to it by one dense map first.

    The state is a pair (real part, imaginary part) of float32 arrays ``(batch, n_layers, P)``.

    Attributes:
        d_state: complex state size before conjugate symmetry halves it; a multiple of ``2 * n_blocks``.
        n_blocks: number of diagonal blocks that HiPPO-N is initialised with (Smith et al., appendix B.1.1).
        discretization: ``"zoh"`` (zero-order hold) or ``"bilinear"``.
        dt_min: smallest initial time step; time steps are drawn log-uniformly.
        dt_max: largest initial time step.
        clip_eigenvalues: keep the eigenvalues' real parts below -1e-4, so that no state can grow for ever.
        activation: ``"full_glu"``, ``"half_glu1"``, ``"half_glu2"`` or ``"gelu"``, as in the published S5
            code: z1 * sigmoid(z2) of two dense maps of gelu(y); gelu(y) * sigmoid(dense(gelu(y))); y *
            sigmoid(dense(gelu(y))); gelu(y).
        norm: layer norm before (``"pre"``) or after (``"post"``) each residual block, or ``"none"`` (the RL
            paper's choice).
        gtrxl_norm: the same layer norm once more on the model's output before the activation, as the RL
            paper's code has it (after Parisotto et al. 2020, arXiv 1910.06764). Its scale and bias are shared
            with ``norm``'s.
        method: the scan's method, see ``linear_recurrence``.
        chunk_rows: how many rows (time x batch) the whole stack processes at a time at most, so that nothing
            between its layers leaves the processor's cache; 0 for the whole sequence at once. None: what
            suits the platform (see ``chunks``).
        remat: what the backward pass finds stored: ``"none"`` recomputes nothing, ``"dots"`` stores states
            and the gates' products and recomputes what is pointwise and the product out of the state,
            ``"full"`` stores one state a layer and chunk, and recomputes every chunk block by block.
            ``"auto"``: none where one chunk holds the whole sequence, else dots, which then is faster as well
            as smaller.

    """

    d_state: int = 64
    n_blocks: int = 1
    discretization: str = "zoh"
    dt_min: float = 0.001
    dt_max: float = 0.1
    clip_eigenvalues: bool = False
    activation: str = "full_glu"
    norm: str = "none"
    gtrxl_norm: bool = False
    method: str = AUTO
    chunk_rows: int | None = None
    remat: str = AUTO

    def __post_init__(self) -> None:
        super().__post_init__()
        self.set_checked(
            d_state=integer("d_state", self.d_state),
            n_blocks=integer("n_blocks", self.n_blocks),
            dt_min=positive("dt_min", self.dt_min),
            dt_max=positive("dt_max", self.dt_max),
        )
        one_of("discretization", self.discretization, DISCRETIZATIONS)
        one_of("activation", self.activation, ACTIVATIONS)
        one_of("norm", self.norm, NORMS)
        one_of("method", self.method, [AUTO, *METHODS])
        one_of("remat", self.remat, [AUTO, *REMATS])
        if self.chunk_rows is not None:
            self.set_checked(chunk_rows=integer("chunk_rows", self.chunk_rows, minimum=0))
        boolean("clip_eigenvalues", self.clip_eigenvalues)
        boolean("gtrxl_norm", self.gtrxl_norm)
        if self.d_state % (2 * self.n_blocks):
            raise ValueError(
                f"d_state: got {self.d_state}, expected a multiple of 2 * n_blocks = {2 * self.n_blocks}"
            )
        if self.dt_min > self.dt_max:
            raise ValueError(f"dt_min: got {self.dt_min}, expected at most dt_max = {self.dt_max}")

    @property
    def lanes(self) -> int:
        """P, the number of complex numbers in one layer's state."""
        return self.d_state // 2

    @property
    def state_shape(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The real and the imaginary part, ``(n_layers, P)`` each."""
        return (self.n_layers, self.lanes), (self.n_layers, self.lanes)

    def init(self, key: Array, state: State, x: Array, episode_starts: Array) -> dict[str, Array]:
        """Make parameters for inputs of ``x``'s last dimension F.

        Returns:
            ``lambda_re, lambda_im, log_dt (L, P)``, ``B (L, H, 2, P)``, ``C (L, 2, P, H)``, ``D (L, H)``;
            unless the activation is gelu ``gate_kernel (L, H, G)``, ``gate_bias (L, G)`` with G = 2H for
            full_glu and H for half_glu; with a norm ``norm_scale, norm_bias (L, H)``; where F is not H,
            ``input_kernel (F, H)``, ``input_bias (H,)``.

        """
        eigenvalues, basis = block_hippo(self.d_state, self.n_blocks)
        return self._init(key, x.shape[-1], _real_pair(eigenvalues), _real_pair(basis))

    def param_shapes(self, width: int) -> Any:
        """Return ``init``'s shapes without diagonalising anything. See ``Memory.param_shapes``."""
        eigenvalues = jax.ShapeDtypeStruct((2, self.lanes), jnp.float32)
        basis = jax.ShapeDtypeStruct((2, self.d_state, self.lanes), jnp.float32)
        return jax.eval_shape(
            lambda *arrays: self._init(jax.random.key(0), width, *arrays), eigenvalues, basis
        )

    def _init(self, key: Array, input_width: int, eigenvalues: Array, basis: Array) -> dict[str, Array]:
        projection_key, layers_key = jax.random.split(key)
        layer_keys = jax.random.split(layers_key, self.n_layers)
        layers = jax.vmap(self._init_layer, in_axes=(0, None, None))(layer_keys, eigenvalues, basis)
        return {**init_projection(projection_key, input_width, self.d_model), **layers}

    def _init_layer(self, key: Array, eigenvalues: Array, basis: Array) -> dict[str, Array]:
        width, lanes = self.d_model, self.lanes
        keys = iter(jax.random.split(key, 5))
        basis_re, basis_im = basis

        real_b = jax.random.normal(next(keys), (width, self.d_state), jnp.float32) / jnp.sqrt(width)
        b = jnp.stack([real_b @ basis_re, -(real_b @ basis_im)], axis=1)
        c = jax.random.normal(next(keys), (2, self.d_state, width), jnp.float32) / jnp.sqrt(2 * self.d_state)
        c_re = basis_re.T @ c[0] - basis_im.T @ c[1]
        c_im = basis_re.T @ c[1] + basis_im.T @ c[0]
        log_low, log_high = np.log(self.dt_min), np.log(self.dt_max)
        params = {
            "lambda_re": eigenvalues[0],
            "lambda_im": eigenvalues[1],
            "log_dt": jax.random.uniform(next(keys), (lanes,), jnp.float32, log_low, log_high),
            "B": b,
            "C": jnp.stack([c_re, c_im]),
            "D": jax.random.normal(next(keys), (width,), jnp.float32),
        }
        if self.activation != "gelu":
            gates = 2 * width if self.activation == "full_glu" else width
            params["gate_kernel"] = nn.initializers.lecun_normal()(next(keys), (width, gates), jnp.float32)
            params["gate_bias"] = jnp.zeros(gates, jnp.float32)
        if self.norm != "none" or self.gtrxl_norm:
            params["norm_scale"] = jnp.ones(width, jnp.float32)
            params["norm_bias"] = jnp.zeros(width, jnp.float32)
        return params

    def prepare(self, params: Params) -> "PreparedStack":
        """Discretise every layer and pack its matrices, so that a step computes nothing twice."""
        return PreparedStack(
            projection={name: leaf for name, leaf in params.items() if name.startswith("input_")},
            layers=tuple(self._prepare_layer(layer) for layer in self._layers(params)),
        )

    def _layers(self, params: Params) -> list[dict[str, Array]]:
        """Cut the parameters apart: ``init``'s result without the projection, a dictionary a layer."""
        stacked = {name: leaf for name, leaf in params.items() if not name.startswith("input_")}
        return [{name: leaf[i] for name, leaf in stacked.items()} for i in range(self.n_layers)]

    def _prepare_layer(self, params: Params) -> PreparedLayer:
        decay, gain = self.discretize(params["lambda_re"], params["lambda_im"], params["log_dt"])
        b = planar.multiply(gain, params["B"])
        c = params["C"]
        return PreparedLayer(
            decay=decay,
            into_state=b.reshape(self.d_model, 2 * self.lanes),
            out_of_state=jnp.concatenate([2.0 * c[0], -2.0 * c[1]]),
            feedthrough=params["D"],
            rest={name: leaf for name, leaf in params.items() if name.startswith(("gate_", "norm_"))},
        )

    def discretize(self, lambda_re: Array, lambda_im: Array, log_dt: Array) -> tuple[Array, Array]:
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

    def apply(
        self, params: Params, state: State, x: Array, episode_starts: Array | None
    ) -> tuple[State, Array]:
        """Run over a sequence; ``episode_starts`` None means that none starts. See ``Memory.apply``."""
        self.check_sequence(params, state, x, episode_starts)
        # What is made outside the loop over chunks is kept all the time: prepared matrices, and even slices.
        prepared = None if self.remat == "full" else self.prepare(params)
        block = self._block if prepared else recomputed(self._block_from_parameters)

        def run(carried: list[Array], now: tuple[Array, Array | None]) -> tuple[list[Array], Array]:
            """Run the whole stack over one chunk of time."""
            x, episode_starts = now
            x = project(params, x)
            finals = []
            layers: Iterable[Any] = prepared.layers if prepared else self._layers(params)
            for layer, initial in zip(layers, carried, strict=True):
                final, x = block((layer, initial, x), episode_starts)
                finals.append(final)
            return finals, x

        carried, y = run_in_chunks(
            run, planar_state(state), (x, episode_starts), rows=self.chunk_rows, remat=self.remat
        )
        return paired_state(carried), y

    def _block(
        self, inputs: tuple[PreparedLayer, Array, Array], episode_starts: Array | None
    ) -> tuple[Array, Array]:
        """Run one layer with its gate, norms and skip: its last state, and the next layer's input."""
        layer, initial, x = inputs
        u = self._before(layer, x)
        final, y = layer_sequence(layer, initial, u, episode_starts, method=self.method)
        return final, self._after(layer, x, y)

    def _block_from_parameters(
        self, inputs: tuple[dict[str, Array], Array, Array], episode_starts: Array | None
    ) -> tuple[Array, Array]:
        """``_block`` with a layer that is prepared when its input is known, so that no other's is kept."""
        params, initial, x = inputs
        # Of these two the packed matrices are made, into the state and out of it.
        late = after(x, {"log_dt": params["log_dt"], "C": params["C"]})
        return self._block((self._prepare_layer({**params, **late}), initial, x), episode_starts)

    def step(
        self, prepared: "PreparedStack", state: State, x: Array, episode_starts: Array
    ) -> tuple[State, Array]:
        """Run over one step. See ``Memory.step``."""

        def run(state: State, x: Array, episode_starts: Array) -> tuple[State, Array]:
            x = project(prepared.projection, x)
            re, im = state
            finals = []
            for i, layer in enumerate(prepared.layers):
                u = self._before(layer, x)
                final, y = layer_step(layer, (re[:, i], im[:, i]), u, episode_starts)
                x = self._after(layer, x, y)
                finals.append(final)
            re, im = (jnp.stack(parts, axis=1) for parts in zip(*finals, strict=True))
            return (re, im), x

        stepped: tuple[State, Array] = step_in_groups(
            run, state, x, episode_starts, weights=self.n_layers * self.d_model**2
        )
        return stepped

    def _before(self, layer: PreparedLayer, x: Array) -> Array:
        return layer_norm(layer.rest, x) if self.norm == "pre" else x

    def _after(self, layer: PreparedLayer, skip: Array, y: Array) -> Array:
        if self.gtrxl_norm:
            y = layer_norm(layer.rest, y)
        x = skip + self._activate(layer.rest, y)
        return layer_norm(layer.rest, x) if self.norm == "post" else x

    def _activate(self, params: Params, y: Array) -> Array:
        hidden = nn.gelu(y)
        if self.activation == "gelu":
            return hidden
        gates = checkpoint_name(dense(hidden, params["gate_kernel"], params["gate_bias"]), GATES)
        if self.activation == "full_glu":
            hidden, gates = jnp.split(gates, 2, axis=-1)
        elif self.activation == "half_glu2":
            hidden = y
        return hidden * jax.nn.sigmoid(gates)


@struct.dataclass
class PreparedStack:
    """What a stack of S5 layers needs to run, computed once per set of parameters."""

    projection: dict[str, Array]
    layers: tuple[PreparedLayer, ...]


def planar_state(state: State) -> list[Array]:
    """Turn the pair of ``(B, n_layers, P)`` arrays into one ``(B, 2, P)`` array a layer."""
    re, im = state
    return [jnp.stack([re[:, i], im[:, i]], axis=1) for i in range(re.shape[1])]


def paired_state(layers: list[Array]) -> tuple[Array, Array]:
    """Turn a ``(B, 2, P)`` array per layer back into the pair of ``(B, n_layers, P)`` arrays."""
    stacked = jnp.stack(layers, axis=1)
    return stacked[:, :, 0], stacked[:, :, 1]


def _real_pair(x: np.ndarray[Any, Any]) -> Array:
    return jnp.asarray(np.stack([x.real, x.imag]), jnp.float32)


def layer_norm(params: Params, x: Array) -> Array:
    """Normalise ``x (..., H)`` over its features (Ba et al. 2016, arXiv 1607.06450)."""
    mean = jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(x - mean), axis=-1, keepdims=True)
    normalised = (x - mean) * jax.lax.rsqrt(variance + LAYER_NORM_EPSILON)
    return jnp.asarray(normalised * params["norm_scale"] + params["norm_bias"])


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
