"""The shapes in the core's signatures, which jaxtyping reads: they hold for what goes in and comes out."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from functools import partial
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax import Array
from jaxtyping import Float, jaxtyped

import s5_adapters.core
from s5_adapters.core import ActorCritic, ActorCriticConfig, Box, Discrete, make_memory
from s5_adapters.core.memories.memory import memory_names
from s5_adapters.core.memories.stack import Stack
from s5_adapters.core.network.distributions import ActionSpec, MultiDiscrete, distribution
from s5_adapters.core.recurrence import adjoint, methods, planar
from s5_adapters.core.recurrence.convolution import causal_convolution
from s5_adapters.core.recurrence.scan import linear_recurrence, resettable_scan
from s5_adapters.core.xla import rows

NAMES = {name: getattr(jaxtyping, name) for name in ("Bool", "Complex", "Float", "Inexact", "Int", "Shaped")}
T, B, F, H, P = 6, 2, 3, 8, 5
KEY = jax.random.key(0)


def hints_of(fn: Callable[..., Any]) -> dict[str, Any]:
    return get_type_hints(fn, {**inspect.unwrap(fn).__globals__, **NAMES})


def is_shaped(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray)


def fits(value: Any, hint: Any) -> bool:
    """Tell whether a value fits every shape in a type, with the axes named so far."""
    if get_origin(hint) in (Union, UnionType):
        return any(fits(value, part) for part in get_args(hint))
    if get_origin(hint) in (tuple, list) and ... not in get_args(hint):
        parts = get_args(hint) if get_origin(hint) is tuple else get_args(hint) * len(value)
        return len(value) == len(parts) and all(map(fits, value, parts))
    if hint is type(None):
        return value is None
    return isinstance(value, hint) if is_shaped(hint) else True


def check(fn: Callable[..., Any], *args: Any, static: tuple[Any, ...] = (), **named: Any) -> None:
    """Trace ``fn(*static, *args, **named)``, and compare arguments and result with the signature."""
    hints = hints_of(fn)

    def call(*args: Any) -> Any:
        bound = inspect.signature(fn).bind(*static, *args, **named)
        result = fn(*static, *args, **named)
        with jaxtyped("context"):
            for name, value in bound.arguments.items():
                assert fits(value, hints[name]), f"{fn.__qualname__}: {name} is not {hints[name]}"
            assert fits(result, hints["return"]), f"{fn.__qualname__}: the result is not {hints['return']}"
        return result

    jax.eval_shape(call, *args)


def zeros(shapes: Any) -> Any:
    """Return what is traced as arrays of these shapes; nothing is computed."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def floats(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def starts(*shape: int) -> np.ndarray:
    return np.zeros(shape, bool)


def test_a_wrong_shape_is_noticed():
    def transpose(x: Float[Array, "T B"]) -> Float[Array, "T B"]:  # noqa: F722
        return x.T

    with pytest.raises(AssertionError, match="the result is not"):
        check(transpose, floats(T, B))
    with pytest.raises(AssertionError, match="x is not"):
        check(transpose, floats(T))


def functions_of(module: Any) -> Iterator[Callable[..., Any]]:
    for thing in vars(module).values():
        if getattr(thing, "__module__", None) == module.__name__:
            inside = vars(thing).values() if inspect.isclass(thing) else (thing,)
            yield from filter(inspect.isfunction, inside)


def test_jaxtyping_reads_every_signature():
    names = [m.name for m in pkgutil.walk_packages(s5_adapters.core.__path__, "s5_adapters.core.")]
    functions = [fn for name in names for fn in functions_of(importlib.import_module(name))]
    for fn in functions:
        hints_of(fn)
    assert len(functions) > 200


@pytest.mark.parametrize("name", memory_names())
def test_memories(name: str):
    memory = make_memory(name, d_model=H, n_layers=2)
    params, state = zeros(memory.param_shapes(F)), zeros(jax.eval_shape(lambda: memory.initial_state(B)))
    prepared = zeros(jax.eval_shape(memory.prepare, params))
    check(memory.apply, params, state, floats(T, B, F), starts(T, B))
    check(memory.step, prepared, state, floats(B, F), starts(B))
    if isinstance(memory, Stack):
        layer, carried = prepared.blocks[0].layer, zeros(jax.eval_shape(memory.split, state))[0]
        check(memory.layer_sequence, layer, carried, floats(T, B, H), starts(T, B))
        check(memory.layer_step, layer, jax.tree.map(lambda leaf: leaf[:, 0], state), floats(B, H), starts(B))


@pytest.mark.parametrize("action", [Discrete(3), MultiDiscrete((2, 3)), Box((-1.0,), (1.0,))])
@pytest.mark.parametrize("obs_shape", [(F,), (36, 36, 1)])
def test_the_network(action: ActionSpec, obs_shape: tuple[int, ...]):
    net = ActorCritic(ActorCriticConfig(obs_shape=obs_shape, action=action, memory="feedforward"))
    params, state = zeros(net.param_shapes()), zeros(jax.eval_shape(lambda: net.initial_state(B)))
    check(net.apply, params, state, floats(T, B, *obs_shape), starts(T, B))
    check(net.step, zeros(jax.eval_shape(net.prepare, params)), state, floats(B, *obs_shape), starts(B))
    check(net.trunk.apply, params["trunk"], state, floats(T, B, *obs_shape), starts(T, B))
    check(net.heads.apply, params["heads"], *[floats(T, B, n) for n in net.trunk.latent_widths])
    inputs = jnp.zeros((T, B, action.num_inputs))
    check(distribution, inputs, static=(action,))
    dist = distribution(action, inputs)
    check(dist.sample, KEY)
    check(dist.mode)
    check(dist.log_prob, dist.mode())
    check(dist.entropy)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64])
@pytest.mark.parametrize("batch", [(), (B,), (B, 4)])
@pytest.mark.parametrize("varies", [False, True])
def test_the_recurrence(dtype: Any, batch: tuple[int, ...], varies: bool):
    inputs = np.zeros((T, *batch, P), dtype)
    decay = inputs if varies else np.zeros(P, dtype)
    check(linear_recurrence, decay, inputs, starts(T, *batch), inputs[0])


@pytest.mark.parametrize("c", [1, 2])
def test_the_recurrence_in_components(c: int):
    decay, varying, initial = floats(c, P), floats(T, B, c, P), floats(B, c, P)
    for run in (resettable_scan, *methods.METHODS.values()):
        check(run, decay, varying, starts(T, B), initial)
    for run in (resettable_scan, *methods.VARYING_METHODS.values()):
        check(run, varying, varying, starts(T, B), initial)
    backwards = partial(methods.sequential, reverse=True)
    given = varying, starts(T, B), varying, initial
    check(adjoint.recurrence_adjoint, decay, *given, static=(backwards,))
    check(adjoint.varying_adjoint, varying, *given, static=(backwards,))
    for kernel_adjoint in adjoint.KERNEL_ADJOINTS.values():
        check(kernel_adjoint, decay, *given)
    check(planar.multiply, decay, varying)
    check(planar.squares, decay, count=3)
    check(planar.select, starts(T, B), varying)
    check(planar.multiply_conjugate_sum, varying, varying)


def test_the_planar_functions():
    x = floats(T, B, 2, P)
    check(planar.to_complex, x)
    check(planar.from_complex, np.zeros((T, B, P), np.complex64))
    for fn in (planar.exp, planar.expm1):
        check(fn, floats(2, P))
    check(planar.divide, floats(2, P), floats(2, P))


def test_rows():
    x, kernel = floats(T, B, F), floats(F, H)
    check(rows.product, x, kernel)
    check(rows.sum_rows, x)
    check(rows.dense, x, kernel, floats(H))
    check(rows.scale, floats(F), x)
    check(rows.add_bias, x, floats(F))
    check(causal_convolution, floats(4, F), floats(F), floats(B, 3, F), x, starts(T, B))
