"""A stack of recurrent layers: all that is not the recurrence.

A layer is a sequence model with a state, ``u (T, B, H) -> y (T, B, H)``. The stack brings inputs to width H,
puts norms, a gate and a skip connection around every layer, and runs the whole over time in chunks, with a
choice of what the backward pass finds stored, or one step at a time to act.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from s5_adapters.core.checks import boolean, integer, one_of
from s5_adapters.core.memories.chunks import GATES, REMATS, run_in_chunks, step_in_groups
from s5_adapters.core.memories.memory import Memory, Params, State, init_projection, is_shape, project
from s5_adapters.core.recurrence.methods import METHODS
from s5_adapters.core.recurrence.scan import AUTO
from s5_adapters.core.shapes import Bool, Float
from s5_adapters.core.xla.recompute import after, recomputed
from s5_adapters.core.xla.rows import dense

ACTIVATIONS: Final = ("full_glu", "half_glu1", "half_glu2", "gelu", "none")
NORMS: Final = ("none", "pre", "post")
LAYER_NORM_EPSILON: Final = 1e-6
_OF_THE_STACK: Final = ("gate_", "norm_")
"""Prefixes of a block's parameters that are the stack's and not the layer's."""


@dataclass(frozen=True, kw_only=True)
class Stack(Memory):
    """Blocks ``x -> x + gate(layer(x))`` on top of each other, with norms where wanted.

    A subclass supplies the layer: ``layer_state_shape``, ``init_layer``, ``layer_sequence``, and where it
    pays ``prepare_layer`` and ``layer_step``. An input whose width is not d_model is brought to it by one
    dense map first.

    The state's leaves are the layers', stacked: ``(batch, n_layers, ...)``.

    Attributes:
        activation: the gate: ``"full_glu"``, ``"half_glu1"``, ``"half_glu2"`` or ``"gelu"``, as in the
            published S5 code: z1 * sigmoid(z2) of two dense maps of gelu(y); gelu(y) *
            sigmoid(dense(gelu(y))); y * sigmoid(dense(gelu(y))); gelu(y). ``"none"``: y, for a layer with a
            gate of its own.
        norm: layer norm before (``"pre"``) or after (``"post"``) each residual block, or ``"none"`` (the RL
            paper's choice for S5).
        gtrxl_norm: the same layer norm once more on the layer's output before the activation, as the RL
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

    methods: ClassVar[Iterable[str]] = METHODS
    """The scan's methods that the layer can use."""
    prepared_from: ClassVar[tuple[str, ...]] = ()
    """The parameters of which ``prepare_layer`` makes new matrices: ``remat="full"`` holds them back, so that
    only the matrices of the layer at work exist."""

    activation: str = "full_glu"
    norm: str = "none"
    gtrxl_norm: bool = False
    method: str = AUTO
    chunk_rows: int | None = None
    remat: str = AUTO

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("activation", self.activation, ACTIVATIONS)
        one_of("norm", self.norm, NORMS)
        one_of("method", self.method, [AUTO, *self.methods])
        one_of("remat", self.remat, [AUTO, *REMATS])
        if self.chunk_rows is not None:
            self.set_checked(chunk_rows=integer("chunk_rows", self.chunk_rows, minimum=0))
        boolean("gtrxl_norm", self.gtrxl_norm)

    @property
    @abstractmethod
    def layer_state_shape(self) -> Any:
        """The pytree of one layer's state, every leaf replaced by its shape without the batch axis."""

    @property
    def rows_of_a_chunk(self) -> int | None:
        """``chunk_rows``, or what suits the layer where nothing is said; None: what suits the platform."""
        return self.chunk_rows

    @abstractmethod
    def init_layer(self, keys: Array) -> Mapping[str, Array]:
        """Make one layer's parameters from ``keys (4,)``. No name may begin with input_, gate_ or norm_."""

    def prepare_layer(self, params: Params) -> Any:
        """Do once for one layer what every step would repeat. See ``Memory.prepare``."""
        return params

    @abstractmethod
    def layer_sequence(
        self, layer: Any, state: State, u: Float[Array, "T B H"], episode_starts: Bool[Array, "T B"] | None
    ) -> tuple[State, Float[Array, "T B H"]]:
        """Run one layer over a sequence.

        Args:
            layer: from ``prepare_layer``.
            state: what the first step carries in, leaves ``(B, ...)``.
            u: ``(T, B, H)``.
            episode_starts: ``(T, B)`` bool, or None for no resets.

        Returns:
            The state after the last step, and the outputs ``(T, B, H)``.

        """

    def split(self, state: State) -> list[State]:
        """Cut a state apart into what ``layer_sequence`` carries, a state a layer."""
        return split_layers(state, self.n_layers)

    def join(self, states: list[State]) -> State:
        """Undo ``split``."""
        return join_layers(states)

    def layer_step(
        self, layer: Any, state: State, u: Float[Array, "B H"], episode_starts: Bool[Array, "B"]
    ) -> tuple[State, Float[Array, "B H"]]:
        """Run one layer over one step, ``u (B, H)``, ``episode_starts (B,)``, to the next state and y."""
        state, y = self.layer_sequence(layer, state, u[None], episode_starts[None])
        return state, y[0]

    @property
    def state_shape(self) -> Any:
        """The shapes of a layer's state, ``n_layers`` before each."""
        return jax.tree.map(lambda shape: (self.n_layers, *shape), self.layer_state_shape, is_leaf=is_shape)

    def init(self, key: Array, width: int) -> dict[str, Array]:
        """Make parameters for inputs of that width.

        Returns:
            ``init_layer``'s, stacked over the layers; with a gate ``gate_kernel (L, H, G)``, ``gate_bias (L,
            G)``, G being 2H for full_glu and H for half_glu; with a norm ``norm_scale, norm_bias (L, H)``;
            where the width F is not H, ``input_kernel (F, H)``, ``input_bias (H,)``.

        """
        projection_key, layers_key = jax.random.split(key)
        layers = jax.vmap(self._init_block)(jax.random.split(layers_key, self.n_layers))
        return {**init_projection(projection_key, width, self.d_model), **layers}

    def _init_block(self, key: Array) -> dict[str, Array]:
        *layer_keys, gate_key = jax.random.split(key, 5)
        params, width = dict(self.init_layer(jnp.stack(layer_keys))), self.d_model
        if self.activation not in ("gelu", "none"):
            gates = 2 * width if self.activation == "full_glu" else width
            params["gate_kernel"] = nn.initializers.lecun_normal()(gate_key, (width, gates), jnp.float32)
            params["gate_bias"] = jnp.zeros(gates, jnp.float32)
        if self.norm != "none" or self.gtrxl_norm:
            params["norm_scale"] = jnp.ones(width, jnp.float32)
            params["norm_bias"] = jnp.zeros(width, jnp.float32)
        return params

    def prepare(self, params: Params) -> PreparedStack:
        """Prepare every layer, so that a step computes nothing twice."""
        return PreparedStack(
            projection={name: leaf for name, leaf in params.items() if name.startswith("input_")},
            blocks=tuple(self._prepare_block(block) for block in self._blocks(params)),
        )

    def _blocks(self, params: Params) -> Iterator[dict[str, Array]]:
        """Cut the parameters apart: ``init``'s result without the projection, a dictionary a block."""
        stacked = {name: leaf for name, leaf in params.items() if not name.startswith("input_")}
        return ({name: leaf[i] for name, leaf in stacked.items()} for i in range(self.n_layers))

    def _prepare_block(self, params: Params) -> PreparedBlock:
        around = {name: leaf for name, leaf in params.items() if name.startswith(_OF_THE_STACK)}
        layer = {name: leaf for name, leaf in params.items() if name not in around}
        return PreparedBlock(self.prepare_layer(layer), around)

    def apply(
        self,
        params: Params,
        state: State,
        x: Float[Array, "T B F"],
        episode_starts: Bool[Array, "T B"] | None,
    ) -> tuple[State, Float[Array, "T B H"]]:
        """Run over a sequence; ``episode_starts`` None means that none starts. See ``Memory.apply``."""
        checked = jnp.zeros(x.shape[:2], bool) if episode_starts is None else episode_starts
        self.check_sequence(params, state, x, checked)
        # What is made outside the loop over chunks is kept all the time: prepared matrices, and even slices.
        prepared = None if self.remat == "full" else self.prepare(params)
        block = self._block if prepared else recomputed(self._block_from_parameters)

        def run(carried: list[State], now: tuple[Array, Array | None]) -> tuple[list[State], Array]:
            """Run the whole stack over one chunk of time."""
            x, episode_starts = now
            x = project(params, x)
            finals = []
            blocks: Iterable[Any] = prepared.blocks if prepared else self._blocks(params)
            for layer, initial in zip(blocks, carried, strict=True):
                final, x = block((layer, initial, x), episode_starts)
                finals.append(final)
            return finals, x

        carried, y = run_in_chunks(
            run, self.split(state), (x, episode_starts), rows=self.rows_of_a_chunk, remat=self.remat
        )
        return self.join(carried), y

    def _block(
        self, inputs: tuple[PreparedBlock, State, Array], episode_starts: Array | None
    ) -> tuple[State, Array]:
        """Run one layer with its gate, norms and skip: its last state, and the next block's input."""
        block, initial, x = inputs
        final, y = self.layer_sequence(block.layer, initial, self._before(block, x), episode_starts)
        return final, self._after(block, x, y)

    def _block_from_parameters(
        self, inputs: tuple[dict[str, Array], State, Array], episode_starts: Array | None
    ) -> tuple[State, Array]:
        """Apply ``_block`` with a layer prepared when its input is known, so that no other's is kept."""
        params, initial, x = inputs
        late = after(x, {name: params[name] for name in self.prepared_from})
        return self._block((self._prepare_block({**params, **late}), initial, x), episode_starts)

    def step(
        self, prepared: PreparedStack, state: State, x: Float[Array, "B F"], episode_starts: Bool[Array, "B"]
    ) -> tuple[State, Float[Array, "B H"]]:
        """Run over one step. See ``Memory.step``."""

        def run(state: State, x: Array, episode_starts: Array) -> tuple[State, Array]:
            x = project(prepared.projection, x)
            finals = []
            for block, carried in zip(prepared.blocks, split_layers(state, self.n_layers), strict=True):
                final, y = self.layer_step(block.layer, carried, self._before(block, x), episode_starts)
                x = self._after(block, x, y)
                finals.append(final)
            return join_layers(finals), x

        stepped: tuple[State, Array] = step_in_groups(
            run, state, x, episode_starts, weights=self.n_layers * self.d_model**2
        )
        return stepped

    def _before(self, block: PreparedBlock, x: Array) -> Array:
        return layer_norm(block.around, x) if self.norm == "pre" else x

    def _after(self, block: PreparedBlock, skip: Array, y: Array) -> Array:
        if self.gtrxl_norm:
            y = layer_norm(block.around, y)
        x = skip + self._activate(block.around, y)
        return layer_norm(block.around, x) if self.norm == "post" else x

    def _activate(self, params: Params, y: Array) -> Array:
        if self.activation == "none":
            return y
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
class PreparedBlock:
    """One layer, prepared, and the parameters of the gate and the norm around it."""

    layer: Any
    around: dict[str, Array]


@struct.dataclass
class PreparedStack:
    """A stack's prepared weights, computed once per set of parameters."""

    projection: dict[str, Array]
    blocks: tuple[PreparedBlock, ...]


def split_layers(state: State, n_layers: int) -> list[State]:
    """Cut a state apart, leaves ``(B, n_layers, ...)`` into ``n_layers`` states with leaves ``(B, ...)``."""
    return [jax.tree.map(lambda leaf, i=i: leaf[:, i], state) for i in range(n_layers)]


def join_layers(states: list[State]) -> State:
    """Put the layers' states together again."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *states)


def layer_norm(params: Params, x: Float[Array, "*batch H"]) -> Float[Array, "*batch H"]:
    """Normalise ``x (..., H)`` over its features (Ba et al. 2016, arXiv 1607.06450)."""
    mean = jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(x - mean), axis=-1, keepdims=True)
    normalised = (x - mean) * jax.lax.rsqrt(variance + LAYER_NORM_EPSILON)
    return jnp.asarray(normalised * params["norm_scale"] + params["norm_bias"])
