"""The contract that every memory model keeps, and the registry of their names."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import wraps
from typing import Any, ClassVar, Final, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from s5_adapters.core.checks import integer, nearest_names
from s5_adapters.core.registry import Registry
from s5_adapters.core.shapes import Bool, Float
from s5_adapters.core.xla.rows import dense

Params = Mapping[str, Any]
"""A pytree of float32 parameters; leaves that belong to layers are stacked over them on axis 0."""
State = Any
"""A pytree of float arrays ``(batch, ...)``, possibly without leaves."""


def _as_formerly_too(init: Callable[..., Params]) -> Callable[..., Params]:
    """Let ``init(key, width)`` also be called as ``init(key, state, x, episode_starts)``, as it once was."""

    @wraps(init)
    def call(self: Memory, key: Array, width: Any, *former: Any) -> Params:
        if former:
            message = "Memory.init(key, state, x, episode_starts): call init(key, width) with x's width"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            width = former[0].shape[-1]
        return init(self, key, width)

    return call


@dataclass(frozen=True, kw_only=True)
class Memory(ABC):
    """A sequence model that forgets at episode starts.

    Instances are immutable, and equal and hashable by their configuration, so they can be static arguments of
    ``jax.jit``. All sequences are time-major. A subclass is a frozen dataclass whose fields are JSON values
    (lists become tuples), registered with ``register_memory``.

    Attributes:
        d_model: width of the output, and of the features between layers.
        n_layers: number of layers.

    """

    name: ClassVar[str]
    """The name in the registry."""
    dynamics: ClassVar[tuple[str, ...]] = ()
    """The parameters that say how the state fades and turns, which some train at a lower rate."""
    constant_rate_scales: ClassVar[Mapping[str, float]] = {}
    """What a learning rate that is not annealed is multiplied by unless a policy says it: "memory" for all
    parameters of this memory, "dynamics" for those of its dynamics besides."""

    d_model: int = 64
    n_layers: int = 1

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "init" in cls.__dict__:
            cls.init = _as_formerly_too(cls.init)  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
        self.set_checked(
            d_model=integer("d_model", self.d_model), n_layers=integer("n_layers", self.n_layers)
        )

    def set_checked(self, **values: object) -> None:
        """Store checked values while the instance is being made."""
        for field, value in values.items():
            object.__setattr__(self, field, value)

    @classmethod
    def policy_defaults(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a policy's memory of this kind has where ``config`` leaves it out, width and depth
        aside: see ``defaults``. What is not here stays the constructor's own.

        Args:
            config: the arguments that were said; ``d_model`` and ``n_layers`` are always among them.

        """
        return {}

    @property
    def config(self) -> dict[str, Any]:
        """The keyword arguments that make an equal memory: ``make_memory(m.name, **m.config) == m``."""
        return asdict(self)

    @property
    @abstractmethod
    def state_shape(self) -> Any:
        """The state's pytree, every leaf replaced by its shape, a tuple of ints without the batch axis."""

    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first step: zeros, float32, leaves ``(batch_size, *shape)``."""
        return jax.tree.map(
            lambda shape: jnp.zeros((batch_size, *shape), jnp.float32),
            self.state_shape,
            is_leaf=is_shape,
        )

    @abstractmethod
    def init(self, key: Array, width: int) -> Params:
        """Make parameters for inputs with that number of features.

        Args:
            key: a typed key, as ``jax.random.key`` makes it; one key gives the same parameters each time.
            width: F, the number of features of an input.

        Returns:
            A mapping of names to float32 arrays; what belongs to layers is stacked over them on axis 0. Which
            names there are, and from which distributions they are drawn, each memory's class says.

        """

    def param_shapes(self, width: int) -> Any:
        """Return ``init``'s result for inputs of that width, uncomputed: ``jax.ShapeDtypeStruct`` leaves."""
        return jax.eval_shape(lambda key: self.init(key, width), jax.random.key(0))

    @abstractmethod
    def apply(
        self, params: Params, state: State, x: Float[Array, "T B F"], episode_starts: Bool[Array, "T B"]
    ) -> tuple[State, Float[Array, "T B H"]]:
        """Run over a sequence.

        Args:
            params: from ``init``.
            state: what the first step carries in, leaves ``(B, ...)``.
            x: ``(T, B, F)`` float32.
            episode_starts: ``(T, B)`` bool; True zeroes the state before that step's input is taken.

        Returns:
            The state after the last step, and the outputs ``(T, B, d_model)``.

        Raises:
            TypeError, ValueError: an argument's dtype or shape does not fit; one line that names it.

        """

    def check_sequence(
        self,
        params: Params,
        state: State,
        x: Float[Array, "T B F"],
        episode_starts: Bool[Array, "T B"],
    ) -> None:
        """Check what ``apply`` was given; it costs nothing once compiled.

        Raises:
            TypeError: ``x`` is not floating or ``episode_starts`` not bool.
            ValueError: a shape does not fit the memory's parameters, or another argument's.

        """
        width = params["input_kernel"].shape[0] if "input_kernel" in params else self.d_model
        if x.ndim != 3 or x.shape[-1] != width:
            raise ValueError(f"x: got shape {x.shape}, expected (time, batch, {width})")
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"x: got dtype {x.dtype}, expected a floating dtype")
        if episode_starts is None:
            raise TypeError("episode_starts: got None, expected (time, batch) bool")
        if episode_starts.dtype != jnp.bool_:
            raise TypeError(f"episode_starts: got dtype {episode_starts.dtype}, expected bool")
        if episode_starts.shape != x.shape[:2]:
            raise ValueError(f"episode_starts: got shape {episode_starts.shape}, expected {x.shape[:2]}")
        self.check_state(state, x.shape[1])

    def check_state(self, state: State, batch_size: int) -> None:
        """Check that ``state`` is this memory's, for that many sequences.

        Raises:
            ValueError: it has another structure, or a leaf another shape.

        """
        expected = jax.eval_shape(lambda: self.initial_state(batch_size))
        given: Any = jax.tree.structure(state)
        wanted: Any = jax.tree.structure(expected)
        if given != wanted:
            raise ValueError(f"state: got {given}, expected {wanted}")
        shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (state, expected)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"state: got shapes {shapes[0]}, expected {shapes[1]}")

    def prepare(self, params: Params) -> Any:
        """Do once what every step would repeat; the result serves ``step`` until the parameters change."""
        return params

    @abstractmethod
    def step(
        self, prepared: Any, state: State, x: Float[Array, "B F"], episode_starts: Bool[Array, "B"]
    ) -> tuple[State, Float[Array, "B H"]]:
        """Run one step, ``x (B, F)``, ``episode_starts (B,)``, to the next state and ``(B, d_model)``."""


def is_shape(node: object) -> bool:
    """Tell whether a node of a ``state_shape`` is a leaf's shape."""
    return isinstance(node, tuple) and bool(node) and all(isinstance(n, int) for n in node)


def init_projection(key: Array, width: int, d_model: int) -> dict[str, Array]:
    """Make the dense map that brings inputs of another width to ``d_model``; nothing where none is needed."""
    if width == d_model:
        return {}
    kernel = nn.initializers.lecun_normal()(key, (width, d_model), jnp.float32)
    return {"input_kernel": kernel, "input_bias": jnp.zeros(d_model, jnp.float32)}


def project(params: Params, x: Float[Array, "*batch F"]) -> Float[Array, "*batch H"]:
    """Apply ``init_projection``'s map to ``x (..., F)``; float64, which x64 brings, becomes the parameters'
    dtype first.
    """
    x = x.astype(jax.tree.leaves(params)[0].dtype) if x.dtype == jnp.float64 else x
    return dense(x, params["input_kernel"], params["input_bias"]) if "input_kernel" in params else x


M = TypeVar("M", bound=type[Memory])
_REGISTRY: Final[Registry[Memory]] = Registry(
    "memory",
    {
        "s5": "s5_adapters.core.memories.s5",
        "lru": "s5_adapters.core.memories.lru",
        "mingru": "s5_adapters.core.memories.mingru",
        "mamba": "s5_adapters.core.memories.mamba",
        "gru": "s5_adapters.core.memories.gru",
        "lstm": "s5_adapters.core.memories.lstm",
        "attention": "s5_adapters.core.memories.attention",
        "feedforward": "s5_adapters.core.memories.feedforward",
    },
)


def register_memory(name: str) -> Callable[[M], M]:
    """Return a class decorator that makes a ``Memory`` known to ``make_memory`` under ``name``.

    Raises:
        ValueError: the name is taken by another class.

    """
    return _REGISTRY.register(name)


def memory_names() -> tuple[str, ...]:
    """Return the names that ``make_memory`` knows, sorted."""
    return _REGISTRY.names()


def memory_class(name: str) -> type[Memory]:
    """Return the class registered under ``name``.

    Raises:
        ValueError: no memory has that name; the message lists the nearest ones.

    """
    return _REGISTRY.find(name)


def make_memory(name: str, **config: Any) -> Memory:
    """Make a memory by name: ``make_memory("s5", d_model=256, d_state=256, n_layers=4)``.

    Args:
        name: ``"s5"``, ``"lru"``, ``"mingru"``, ``"mamba"``, ``"gru"``, ``"lstm"``, ``"attention"``,
            ``"feedforward"``, or what ``register_memory`` added.
        **config: the fields of that memory's class; lists, as JSON has them, become tuples.

    Raises:
        ValueError: the name, a field or a field's value is not one the memory knows.

    """
    cls = memory_class(name)
    known = [field.name for field in fields(cls)]
    for field in config:
        if field not in known:
            raise ValueError(
                f"{name} memory: got argument {field!r}, expected some of {nearest_names(field, known)}"
            )
    return cls(**config)
