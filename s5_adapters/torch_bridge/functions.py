"""JAX functions inside torch: `jax2torch`.

Two rules keep the two runtimes apart. JAX may dispatch asynchronously and, on CPU, reads torch's memory in
place, so every output is awaited before torch runs on: no in-place write (`optimizer.step()`) can race with
a computation. And nothing that lives longer than a call is an alias of torch's memory without torch's own
version check standing guard.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

from s5_adapters.core.xla.platform import is_64_bit
from s5_adapters.torch_bridge.arrays import (
    between_graphs,
    check_call,
    common_device,
    in_transform,
    on_device,
    to_jax,
)
from s5_adapters.torch_bridge.process import settle_jax

__all__ = ["jax2torch"]

PyTree = Any
Axes = tuple[int | None, ...]


def jax2torch(fn: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Make a torch function of a JAX function; torch differentiates through it.

    Tensors may sit anywhere in nested tuples, lists, dicts and other pytrees, in positional and keyword
    arguments. The function is traced and compiled once per combination of shapes, dtypes and static values,
    not per call. Arrays and Python floats among the arguments are traced without a gradient; every other
    leaf (int, bool, str, a function, ...) is static: another value is another compilation, so pass an int
    that keeps changing as a tensor.

    Gradients are those of `jax.grad`, in each argument's dtype. For complex tensors they are conjugated,
    since torch's convention is the conjugate of JAX's. As everywhere in torch, changing an argument in
    place between forward and backward is an error. Derivatives of any order, and `torch.func`'s `grad`,
    `vjp`, `jacrev`, `hessian` by `jacrev` twice, `vmap` (by `jax.vmap`) and `functional_call`, compute
    the function again in their backward pass. `torch.compile` calls the function between its graphs.

    The first call of this in a process makes two of JAX's settings: see `settle_jax`.

    Args:
        fn: a pure JAX function, jitted or not, of pytrees, that returns a pytree of arrays.

    Returns:
        A function of the same signature that takes tensors and returns tensors on the device of its
        arguments.

    Raises (when called):
        TypeError: a float64 or complex128 tensor while `jax_enable_x64` is off, or an unhashable static
        argument. ValueError: tensors on different devices. RuntimeError: a CUDA tensor with a jaxlib that
        has no CUDA; forward-mode differentiation (`torch.func.jvp`, `jacfwd`); `torch.jit.trace` and
        `torch.export`; a process forked from one that computes with JAX.
    """
    settle_jax()
    programs: dict[Hashable, _Program] = {}
    caller = f"jax2torch({_name(fn)})"

    @between_graphs
    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> PyTree:
        check_call(caller)
        leaves, treedef = jax.tree.flatten((args, kwargs))
        slots = tuple([_TENSOR if isinstance(leaf, torch.Tensor) else _slot(leaf) for leaf in leaves])
        tensors = [leaf for leaf, slot in zip(leaves, slots, strict=True) if slot is _TENSOR]
        traced = [_held(leaf, caller) for leaf, slot in zip(leaves, slots, strict=True) if slot is _TRACED]
        device = common_device(tensors)
        wanted = torch.is_grad_enabled()
        mask = tuple([wanted and tensor.requires_grad for tensor in tensors])
        key = (treedef, slots, mask)
        try:
            program = programs.get(key)
        except TypeError as error:
            raise TypeError(f"{caller}: {error}: pass it as a tensor or an array") from error
        if program is None:
            described = functools.partial(_describe, treedef, slots)
            program = programs[key] = _Program(_flat(fn, treedef, slots), caller, described, mask)
        if in_transform() or any(mask):
            record = _Call(traced, device)
            function = _Composed if in_transform() else _Bridge
            outputs = function.apply(record, program, *tensors)
            return jax.tree.unflatten(record.structure[0], outputs)
        with on_device(device):
            result = program.run(program.export(tensors), traced)
        return jax.tree.unflatten(result.structure[0], _own(result.arrays, tensors))

    return call


# A leaf of the arguments is a tensor, a traced array without gradient, or a static value in a program's key.
_TENSOR, _TRACED = "tensor", "traced"


class _Static(NamedTuple):
    kind: type  # True == 1 == 1.0 in Python, but not to the function
    value: Hashable


class _Result:
    """A function's output leaves with their tree and which of them are differentiable; the last two static
    to jit.
    """

    def __init__(self, arrays: Sequence[Any], structure: tuple[Any, tuple[bool, ...]]) -> None:
        self.arrays, self.structure = arrays, structure

    @property
    def smooth(self) -> tuple[Any, ...]:
        """The differentiable arrays."""
        return tuple([array for array, smooth in zip(self.arrays, self.structure[1], strict=True) if smooth])


jax.tree_util.register_pytree_node(
    _Result, lambda r: (tuple(r.arrays), r.structure), lambda structure, arrays: _Result(arrays, structure)
)
Flat = Callable[[Sequence[Any], Sequence[Any]], _Result]


def _flat(fn: Callable[..., PyTree], treedef: Any, slots: tuple[Any, ...]) -> Flat:
    """Return the function of the tensors and the traced leaves alone."""

    def flat(tensors: Sequence[Any], traced: Sequence[Any]) -> _Result:
        given, others = iter(tensors), iter(traced)
        leaves = [
            next(given) if slot is _TENSOR else next(others) if slot is _TRACED else slot.value
            for slot in slots
        ]
        args, kwargs = jax.tree.unflatten(treedef, leaves)
        return _result(fn(*args, **kwargs))

    return flat


def _result(outputs: PyTree) -> _Result:
    leaves, treedef = jax.tree.flatten(outputs)
    arrays = [jnp.asarray(leaf) for leaf in leaves]
    return _Result(arrays, (treedef, tuple([jnp.issubdtype(array.dtype, jnp.inexact) for array in arrays])))


class _Program:
    """One function of tensors and traced leaves, with one choice of which tensors need a gradient, and what
    is derived from it: each compiled when first used.

    Args:
        flat: the function.
        caller: what errors call it.
        describe: names the tensor of an index, for errors.
        mask: which tensors need a gradient.
    """

    def __init__(
        self, flat: Flat, caller: str, describe: Callable[[int], str], mask: tuple[bool, ...]
    ) -> None:
        self._flat, self.caller, self._describe, self.mask = flat, caller, describe, mask
        self._derived: dict[Hashable, _Program] = {}
        self.run = jax.jit(self._flat)
        self.linearize = jax.jit(self._linearize)
        self.pull_back = jax.jit(lambda vjp, cotangents: vjp(cotangents))

    def export(self, tensors: Sequence[torch.Tensor]) -> list[Any]:
        """Return the tensors for a jitted call; an error names the argument by its place among the call's."""
        try:
            return [to_jax(tensor) for tensor in tensors]
        except (TypeError, OverflowError, RuntimeError):
            for place, tensor in enumerate(tensors):
                to_jax(tensor, f"{self.caller}: {self._describe(place)}")
            raise

    def gradient(self, mask: tuple[bool, ...]) -> _Program:
        """Return the gradients of the tensors in `mask`, in torch's convention, as a function of all tensors
        and of the differentiable outputs' cotangents.
        """

        def flat(tensors: Sequence[Any], traced: Sequence[Any]) -> _Result:
            inputs, cotangents = tensors[: len(mask)], tensors[len(mask) :]
            _, vjp = jax.vjp(
                lambda *given: self._smooth(mask, inputs, given, traced).smooth, *_of(mask, inputs)
            )
            return _result([jnp.conj(g) for g in vjp(tuple([jnp.conj(c) for c in cotangents]))])

        def describe(place: int) -> str:
            return self._describe(place) if place < len(mask) else "gradient"

        return self._derive(("gradient", mask), flat, describe)

    def batched(self, axes: Axes) -> _Program:
        """Return the function mapped over these axes of its tensors, the new axis first in every output."""
        mapped = jax.vmap(self._flat, in_axes=(list(axes), None))

        def flat(tensors: Sequence[Any], traced: Sequence[Any]) -> _Result:
            return mapped(list(tensors), list(traced))

        return self._derive(("batched", axes), flat, self._describe)

    def _derive(self, key: Hashable, flat: Flat, describe: Callable[[int], str]) -> _Program:
        if key not in self._derived:
            self._derived[key] = _Program(flat, self.caller, describe, self.mask)
        return self._derived[key]

    def _linearize(self, tensors: Sequence[Any], traced: Sequence[Any]) -> tuple[_Result, Callable[..., Any]]:
        def differentiable(*given: Any) -> tuple[tuple[Any, ...], _Result]:
            result = self._smooth(self.mask, tensors, given, traced)
            return result.smooth, result

        _, vjp, result = jax.vjp(differentiable, *_of(self.mask, tensors), has_aux=True)
        return result, vjp

    def _smooth(
        self, mask: tuple[bool, ...], tensors: Sequence[Any], given: Sequence[Any], traced: Sequence[Any]
    ) -> _Result:
        """Return the function with the tensors of `mask` replaced by those given."""
        replacing = iter(given)
        full = [next(replacing) if wanted else t for wanted, t in zip(mask, tensors, strict=True)]
        return self._flat(full, traced)


class _Call:
    """The data of a differentiable call around the autograd function: its traced leaves, its device, and
    afterwards the structure of its outputs.
    """

    def __init__(self, traced: list[Any], device: torch.device) -> None:
        self.traced, self.device = traced, device
        self.structure: Any = None

    def run(self, program: _Program, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Return the program's outputs, without a gradient."""
        with on_device(self.device):
            result = program.run(program.export(tensors), self.traced)
        self.structure = result.structure
        return tuple(_own(result.arrays, tensors))


class _Bridge(torch.autograd.Function):
    """A call of torch's eager mode: its backward pass reads what the forward pass kept."""

    @staticmethod
    def forward(ctx: Any, call: _Call, program: _Program, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with on_device(call.device):
            result, vjp = program.linearize(program.export(tensors), call.traced)
        call.structure = result.structure
        outputs = _own(result.arrays, tensors, kept=jax.tree.leaves(vjp))
        ctx.call, ctx.program, ctx.vjp = call, program, vjp
        ctx.mark_non_differentiable(*_rough(outputs, result.structure))
        # What JAX kept may be torch's own memory: saving the tensors makes torch refuse a write before
        # backward.
        ctx.save_for_backward(*tensors)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        call, program, tensors = ctx.call, ctx.program, ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is to be differentiated itself
            return _gradients(ctx, call, program, tensors, cotangents)
        smooth = _of(call.structure[1], cotangents)
        with on_device(call.device):
            arrays = program.pull_back(ctx.vjp, tuple([to_jax(_conjugate(c), "gradient") for c in smooth]))
            found = iter([_conjugate(g) for g in _own(arrays, smooth, kept=jax.tree.leaves(ctx.vjp))])
        return None, None, *[next(found) if wanted else None for wanted in program.mask]


class _Composed(torch.autograd.Function):
    """A call that can be batched and differentiated as often as wanted: by torch.func, or as the gradient of
    another. Nothing of JAX's is kept for its backward pass, which computes the function again.
    """

    @staticmethod
    def forward(call: _Call, program: _Program, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return call.run(program, tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
        ctx.call, ctx.program, *tensors = inputs
        ctx.mark_non_differentiable(*_rough(output, ctx.call.structure))
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return _gradients(ctx, ctx.call, ctx.program, ctx.saved_tensors, cotangents)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], call: _Call, program: _Program, *tensors: torch.Tensor
    ) -> tuple[tuple[torch.Tensor, ...], tuple[int, ...]]:
        outputs = _Composed.apply(call, program.batched(in_dims[2:]), *tensors)
        return outputs, (0,) * len(outputs)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError(
            f"{ctx.program.caller}: forward-mode differentiation (torch.func.jvp, jacfwd, hessian) is not "
            "there: take the reverse mode (torch.func.vjp, grad, jacrev)"
        )


def _gradients(
    ctx: Any,
    call: _Call,
    program: _Program,
    tensors: Sequence[torch.Tensor],
    cotangents: Sequence[torch.Tensor],
) -> tuple[torch.Tensor | None, ...]:
    """Return what `backward` returns, as differentiable tensors."""
    mask = tuple(ctx.needs_input_grad[2:])
    smooth = _of(call.structure[1], cotangents)
    record = _Call(call.traced, call.device)
    found = iter(_Composed.apply(record, program.gradient(mask), *tensors, *smooth))
    return None, None, *[next(found) if wanted else None for wanted in mask]


def _of(mask: Sequence[bool], values: Sequence[Any]) -> list[Any]:
    return [value for value, wanted in zip(values, mask, strict=True) if wanted]


def _rough(outputs: Sequence[torch.Tensor], structure: tuple[Any, tuple[bool, ...]]) -> list[torch.Tensor]:
    return [output for output, smooth in zip(outputs, structure[1], strict=True) if not smooth]


def _slot(leaf: Any) -> Any:
    traced = isinstance(leaf, float | complex | np.ndarray | np.generic | jax.Array)
    return _TRACED if traced else _Static(type(leaf), leaf)


def _held(leaf: Any, caller: str) -> Any:
    """Return a traced argument that is no tensor, safe to keep until backward: a caller's array is copied."""
    if not isinstance(leaf, np.ndarray):
        return leaf
    if leaf.dtype in (np.float64, np.complex128) and not is_64_bit():
        raise TypeError(
            f"{caller}: a numpy argument is {leaf.dtype}, which JAX would narrow: pass it in "
            "single precision, or set jax.config.update('jax_enable_x64', True)"
        )
    return leaf.copy()


def _own(
    arrays: Sequence[jax.Array], inputs: Sequence[torch.Tensor], kept: Sequence[jax.Array] = ()
) -> list[torch.Tensor]:
    # A write to an output must reach neither an input, nor what backward keeps, nor another output.
    taken = {tensor.data_ptr() for tensor in inputs}
    jax.block_until_ready((arrays, kept))
    if kept:
        taken.update([array.unsafe_buffer_pointer() for array in kept if isinstance(array, jax.Array)])
    outputs = []
    for array in arrays:
        tensor = torch.utils.dlpack.from_dlpack(array)
        pointer = tensor.data_ptr()
        outputs.append(tensor.clone() if pointer in taken else tensor)
        taken.add(pointer)
    return outputs


def _conjugate(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.conj() if tensor.is_complex() else tensor


def _name(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__name__", type(fn).__name__)


def _describe(treedef: Any, slots: tuple[Any, ...], place: int) -> str:
    """Return a tensor of a call in the words of the call: `argument 0['w']`, `argument scale`."""
    tree = jax.tree.unflatten(treedef, range(len(slots)))
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]
    path = [path for path, slot in zip(paths, slots, strict=True) if slot is _TENSOR][place]
    first = path[1].key if hasattr(path[1], "key") else path[1].idx
    return f"argument {first!r}{jax.tree_util.keystr(path[2:])}"
