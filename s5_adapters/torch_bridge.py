"""JAX functions inside torch: values, gradients and parameters, on CPU and CUDA.

`jax2torch(fn)` makes a torch function of any JAX function of pytrees. `JaxModule` holds a JAX model's
parameters as torch parameters, so that torch's optimisers, gradient clipping, checkpoints and DDP work on
them untouched.

Two rules keep the two runtimes apart. JAX may dispatch asynchronously and, on CPU, reads torch's memory in
place, so every output is awaited before torch runs on: no in-place write (`optimizer.step()`) can race with
a computation. And nothing that lives longer than a call is an alias of torch's memory without torch's own
version check standing guard.

The public packages of this kind no longer serve: jax2torch 0.0.7 needs `jax.dlpack.to_dlpack`, which is
gone, and torch-jax-interop 0.0.8 traces again at every call and fails on expanded gradients.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn

__all__ = ["Buckets", "JaxModule", "Normalizer", "jax2torch", "on_device", "to_jax", "to_torch"]

PyTree = Any

# Torch works beside it: JAX leaves most of a GPU's memory alone, unless the environment says otherwise.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
# And torch awaits every result: a program that runs where it is called, not on a thread of JAX's, finds the
# caller's memory in the cache (SB3 collects a fifth faster). It holds if JAX has not computed anything yet.
if "JAX_CPU_ENABLE_ASYNC_DISPATCH" not in os.environ:
    jax.config.update("jax_cpu_enable_async_dispatch", False)

_WIDE = {torch.float64: "float32", torch.complex128: "complex64"}
_INT32 = torch.iinfo(torch.int32)
_NO_NUMPY = frozenset({torch.bfloat16})
_COPIED_BYTES = 1 << 18
"""Up to this size a copy of a CPU array (4 to 35 us) takes less time than dlpack (50 us)."""


def to_jax(tensor: torch.Tensor, name: str = "tensor") -> np.ndarray | jax.Array:
    """The tensor as something a jitted function takes, without a copy where memory allows.

    On CPU that is a numpy view (which `jax.jit` takes in place when it is 64-byte aligned, as torch's own
    allocations are), on CUDA a `jax.Array` by dlpack. The result aliases the tensor: use it and be done
    before writing to either.

    Args:
        tensor: any dense tensor on CPU or CUDA. int64 becomes int32 when every value fits.
        name: what an error calls it.

    Raises:
        TypeError: float64 or complex128 while `jax_enable_x64` is off: they would be narrowed without a word.
        OverflowError: an int64 value beyond int32 while `jax_enable_x64` is off.
        RuntimeError: a device that JAX cannot reach.
    """
    tensor = tensor.detach()
    if tensor.dtype in _WIDE and not jax.config.jax_enable_x64:
        narrow = _WIDE[tensor.dtype]
        raise TypeError(
            f"{name} is {_dtype_name(tensor)}, which JAX would narrow to {narrow}: pass it as {narrow} "
            f"(tensor.to(torch.{narrow})), or set jax.config.update('jax_enable_x64', True)"
        )
    if tensor.dtype == torch.int64 and not jax.config.jax_enable_x64:
        if tensor.numel() and not (_INT32.min <= int(tensor.min()) and int(tensor.max()) <= _INT32.max):
            raise OverflowError(
                f"{name} is int64 with values from {int(tensor.min())} to {int(tensor.max())}, beyond JAX's "
                "int32: set jax.config.update('jax_enable_x64', True) to keep them"
            )
        tensor = tensor.to(torch.int32)
    tensor = tensor.contiguous().resolve_conj().resolve_neg()
    if tensor.device.type == "cpu":
        return jax.dlpack.from_dlpack(tensor) if tensor.dtype in _NO_NUMPY else tensor.numpy()
    check_device(tensor.device, name)
    return jax.dlpack.from_dlpack(tensor)


def to_torch(array: jax.Array) -> torch.Tensor:
    """The array as a tensor on the same device, once it is computed.

    Small arrays on the CPU are copied (but bfloat16, which numpy lacks), in a tenth of the time that dlpack
    takes to hand one over; of others the tensor is the memory itself: writing to it writes to the array.
    """
    on_cpu = next(iter(array.devices())).platform == "cpu"
    if on_cpu and array.nbytes <= _COPIED_BYTES and array.dtype.isbuiltin == 1:  # 2: bfloat16 and the like
        return torch.from_numpy(np.array(array))
    return torch.from_dlpack(array.block_until_ready())


def jax2torch(fn: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Make a torch function of a JAX function; torch differentiates through it.

    Tensors may sit anywhere in nested tuples, lists, dicts and other pytrees, in positional and keyword
    arguments. The function is traced and compiled once per combination of shapes, dtypes and static values,
    not per call. Arrays and Python floats among the arguments are traced without a gradient; every other
    leaf (int, bool, str, a function, ...) is static: another value is another compilation, so pass an int
    that keeps changing as a tensor.

    Gradients are those of `jax.grad`, in each argument's dtype. For complex tensors they are conjugated,
    since torch's convention is the conjugate of JAX's. As everywhere in torch, changing an argument in
    place between forward and backward is an error.

    Args:
        fn: a pure JAX function, jitted or not, of pytrees, that returns a pytree of arrays.

    Returns:
        A function of the same signature that takes tensors and returns tensors on the device of its
        arguments.

    Raises (when called):
        TypeError: a float64 or complex128 tensor while `jax_enable_x64` is off, or an unhashable static
        argument. ValueError: tensors on different devices. RuntimeError: a CUDA tensor with a jaxlib that
        has no CUDA; or, in backward, differentiating twice.
    """
    programs: dict[Hashable, _Program] = {}

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> PyTree:
        leaves, treedef = jax.tree.flatten((args, kwargs))
        slots = tuple([_TENSOR if isinstance(leaf, torch.Tensor) else _slot(leaf) for leaf in leaves])
        tensors = [leaf for leaf, slot in zip(leaves, slots, strict=True) if slot is _TENSOR]
        traced = [_held(leaf, fn) for leaf, slot in zip(leaves, slots, strict=True) if slot is _TRACED]
        device = _device(tensors)
        wanted = torch.is_grad_enabled()
        mask = tuple([wanted and tensor.requires_grad for tensor in tensors])
        key = (treedef, slots, mask)
        try:
            program = programs.get(key)
        except TypeError as error:
            raise TypeError(f"jax2torch({_name(fn)}): {error}: pass it as a tensor or an array") from error
        if program is None:
            program = programs[key] = _Program(fn, treedef, slots, mask)
        if any(mask):
            record = _Call(program, traced, device, [])
            outputs = _Bridge.apply(record, *tensors)
            return jax.tree.unflatten(record.structure[0], outputs)
        with on_device(device):
            result = program.run(program.export(tensors), traced)
        return jax.tree.unflatten(result.structure[0], _own(result.arrays, tensors))

    return call


class JaxModule(nn.Module):
    """A JAX model's parameters as a torch module: one `nn.Parameter` per leaf, named by its path
    (`memory/decay`).

    Torch owns the values; JAX sees them where they lie. What acting needs is computed from them once per
    version, by `prepared`, and thrown away when a parameter is written, replaced, moved or loaded, and when
    the module changes between training and evaluation. A write through `parameter.data` is seen at the next
    such change, or after `forget()`.

    Args:
        params: a pytree of floating arrays, as a core module's `init` returns it. The values are copied.
    """

    def __init__(self, params: PyTree) -> None:
        """Copy `params` into torch parameters; TypeError for a leaf that is not floating."""
        super().__init__()
        paths, self._treedef = jax.tree_util.tree_flatten_with_path(params)
        self._names = tuple(_path_name(path) for path, _ in paths)
        for name, (_, leaf) in zip(self._names, paths, strict=True):
            value = torch.from_numpy(np.array(leaf))
            if not value.is_floating_point():
                raise TypeError(
                    f"parameter {name!r} is {_dtype_name(value)}; torch trains floating arrays only"
                )
            self.register_parameter(name, nn.Parameter(value))
        self._prepared: dict[Callable[..., PyTree], tuple[Any, PyTree]] = {}

    def tree(self) -> PyTree:
        """The parameters themselves, in the pytree the model expects: what to pass to a `jax2torch`
        function.
        """
        return jax.tree.unflatten(self._treedef, self._leaves())

    def arrays(self) -> PyTree:
        """The same pytree as arrays for a jitted call. They alias the parameters: do not keep them."""
        names = zip(self._names, self._leaves(), strict=True)
        return jax.tree.unflatten(self._treedef, [to_jax(leaf, name) for name, leaf in names])

    def snapshot(self) -> PyTree:
        """The same pytree as numpy copies, to save or to hand to the core."""
        return jax.tree.unflatten(
            self._treedef, [leaf.detach().cpu().numpy().copy() for leaf in self._leaves()]
        )

    def load_tree(self, params: PyTree) -> None:
        """Copy values in, leaf by leaf.

        Raises:
            ValueError: another structure, or another shape for a leaf.
        """
        leaves, treedef = jax.tree.flatten(params)
        if treedef != self._treedef:
            raise ValueError(f"parameters have the structure {treedef}, expected {self._treedef}")
        for name, mine, leaf in zip(self._names, self._leaves(), leaves, strict=True):
            if tuple(mine.shape) != np.shape(leaf):
                raise ValueError(
                    f"parameter {name!r} has shape {np.shape(leaf)}, expected {tuple(mine.shape)}"
                )
        with torch.no_grad():
            for mine, leaf in zip(self._leaves(), leaves, strict=True):
                mine.copy_(torch.from_numpy(np.array(leaf)))
        self.forget()

    def prepared(self, prepare: Callable[..., PyTree], *beside: torch.Tensor) -> PyTree:
        """`prepare(params, *beside)`, computed once per version of the tensors. Nothing in it aliases torch's
        memory.

        Args:
            prepare: a function of arrays; the same object at every call, since it is the cache's key.
            beside: tensors that are used together with the parameters, on their device.
        """
        leaves = [*self._leaves(), *beside]
        version = [leaf._version for leaf in leaves], [leaf.data_ptr() for leaf in leaves]
        held = self._prepared.get(prepare)
        if held is None or held[0] != version:
            names = [*self._names, *[f"beside[{i}]" for i in range(len(beside))]]
            copies = [leaf.detach().clone() for leaf in leaves]
            with on_device(_device(leaves)):
                arrays = [to_jax(copy, name) for name, copy in zip(names, copies, strict=True)]
                own, others = arrays[: len(self._names)], arrays[len(self._names) :]
                value = jax.block_until_ready(prepare(jax.tree.unflatten(self._treedef, own), *others))
            held = self._prepared[prepare] = (version, value)
        return held[1]

    def forget(self) -> None:
        """Drop everything prepared from the parameters."""
        self._prepared.clear()

    def train(self, mode: bool = True) -> JaxModule:
        """Torch's switch; a change of mode drops what was prepared."""
        if mode != self.training:
            self.forget()
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        """For pickling and copying: everything but the cache, which holds JAX arrays."""
        return {**self.__dict__, "_prepared": {}}

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.forget()

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> JaxModule:
        self.forget()
        super()._apply(fn, recurse)
        for name, leaf in zip(self._names, self._leaves(), strict=True):
            check_device(leaf.device, f"parameter {name!r}")
        return self

    def _leaves(self) -> list[nn.Parameter]:
        return list(map(self._parameters.__getitem__, self._names))  # type: ignore[arg-type]


class Normalizer(nn.Module):
    """Normalises observations as a portable policy does: `clip((obs - mean) / sqrt(variance + epsilon))`.

    The statistics are frozen, and travel with the module's state.

    Args:
        mean: `obs_shape`.
        variance: `obs_shape`.
        epsilon: added to the variance.
        clip: bound of the result.
    """

    mean: torch.Tensor
    variance: torch.Tensor

    def __init__(self, mean: np.ndarray, variance: np.ndarray, epsilon: float, clip: float) -> None:
        """Copy the statistics."""
        super().__init__()
        self.epsilon, self.clip = epsilon, clip
        self.register_buffer("mean", torch.tensor(np.asarray(mean), dtype=torch.float32))
        self.register_buffer("variance", torch.tensor(np.asarray(variance), dtype=torch.float32))

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        """`(..., *obs_shape)` of any dtype to float32."""
        normalised = (obs.float() - self.mean) / torch.sqrt(self.variance + self.epsilon)
        return normalised.clamp(-self.clip, self.clip)


class Buckets:
    """The shapes compiled so far, to which changing ones are padded: a long run compiles a bounded number.

    A shape is padded to the smallest known one that holds it. Where none does without more than `max_waste`
    times the work, a new one is made known, with every side a power of two: so their number grows with the
    logarithm of the sizes seen, never with the number of minibatches.

    Args:
        max_waste: how many times its own size a shape may be padded to.
        exact_first: take the first shape as it is, since it is likely to stay the only one.
    """

    def __init__(self, max_waste: float = 3.0, *, exact_first: bool = False) -> None:
        """Start with no shape."""
        self.max_waste, self.exact_first = max_waste, exact_first
        self.shapes: set[tuple[int, ...]] = set()

    def add(self, *shape: int) -> None:
        """Make a shape known, to be used as it is."""
        self.shapes.add(shape)

    def fit(self, *shape: int, max_waste: float | None = None) -> tuple[int, ...]:
        """The shape to pad to."""
        if shape in self.shapes:
            return shape
        limit = math.prod(shape) * (self.max_waste if max_waste is None else max_waste)
        holding = [
            known
            for known in self.shapes
            if math.prod(known) <= limit and all(a >= b for a, b in zip(known, shape, strict=True))
        ]
        if holding:
            return min(holding, key=lambda known: (math.prod(known), known))
        if self.shapes or not self.exact_first:
            shape = tuple([1 << (max(side, 1) - 1).bit_length() for side in shape])
        self.add(*shape)
        return shape


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


jax.tree_util.register_pytree_node(
    _Result, lambda r: (tuple(r.arrays), r.structure), lambda structure, arrays: _Result(arrays, structure)
)


class _Program:
    """One function for one tree of arguments, one set of static values and one choice of what needs a
    gradient.
    """

    def __init__(
        self, fn: Callable[..., PyTree], treedef: Any, slots: tuple[Any, ...], mask: tuple[bool, ...]
    ) -> None:
        self._fn, self._treedef, self._slots, self._mask = fn, treedef, slots, mask
        self.run = jax.jit(self._run)
        self.linearize = jax.jit(self._linearize)
        self.pull_back = jax.jit(lambda vjp, cotangents: vjp(cotangents))

    @property
    def name(self) -> str:
        """The function's name, for errors."""
        return _name(self._fn)

    def export(self, tensors: Sequence[torch.Tensor]) -> list[Any]:
        """The tensors for a jitted call; an error names the argument by its place among the call's."""
        try:
            return [to_jax(tensor) for tensor in tensors]
        except (TypeError, OverflowError, RuntimeError):
            tree = jax.tree.unflatten(self._treedef, range(len(self._slots)))
            paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]
            places = [i for i, slot in enumerate(self._slots) if slot is _TENSOR]
            for tensor, place in zip(tensors, places, strict=True):
                to_jax(tensor, f"jax2torch({self.name}): argument {_argument_name(paths[place])}")
            raise

    def _run(self, tensors: Sequence[Any], traced: Sequence[Any]) -> _Result:
        tensors, traced = list(tensors), list(traced)
        leaves = [
            tensors.pop(0) if slot is _TENSOR else traced.pop(0) if slot is _TRACED else slot.value
            for slot in self._slots
        ]
        args, kwargs = jax.tree.unflatten(self._treedef, leaves)
        outputs, treedef = jax.tree.flatten(self._fn(*args, **kwargs))
        arrays = [jnp.asarray(output) for output in outputs]
        return _Result(arrays, (treedef, tuple(jnp.issubdtype(array.dtype, jnp.inexact) for array in arrays)))

    def _linearize(self, tensors: Sequence[Any], traced: Sequence[Any]) -> tuple[_Result, Callable[..., Any]]:
        def differentiable(*inputs: Any) -> tuple[tuple[Any, ...], _Result]:
            given = iter(inputs)
            full = [next(given) if wanted else t for wanted, t in zip(self._mask, tensors, strict=True)]
            result = self._run(full, traced)
            smooth = result.structure[1]
            return tuple(a for a, s in zip(result.arrays, smooth, strict=True) if s), result

        inputs = [t for wanted, t in zip(self._mask, tensors, strict=True) if wanted]
        _, vjp, result = jax.vjp(differentiable, *inputs, has_aux=True)
        return result, vjp


class _Call:
    """What one differentiable call carries around the autograd function: its program, and the tree of its
    outputs.
    """

    def __init__(self, program: _Program, traced: list[Any], device: torch.device, structure: Any) -> None:
        self.program, self.traced, self.device, self.structure = program, traced, device, structure


class _Bridge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with on_device(call.device):
            result, vjp = call.program.linearize(call.program.export(tensors), call.traced)
        call.structure = result.structure
        outputs = _own(result.arrays, tensors, kept=jax.tree.leaves(vjp))
        ctx.call, ctx.vjp = call, vjp
        ctx.mark_non_differentiable(*[o for o, s in zip(outputs, result.structure[1], strict=True) if not s])
        # What JAX kept may be torch's own memory: saving the tensors makes torch refuse a write before
        # backward.
        ctx.save_for_backward(*tensors)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        tensors, call = ctx.saved_tensors, ctx.call
        smooth = [c for c, s in zip(cotangents, call.structure[1], strict=True) if s]
        with torch.no_grad(), on_device(call.device):
            arrays = call.program.pull_back(
                ctx.vjp, tuple([to_jax(_conjugate(c), "gradient") for c in smooth])
            )
            found = iter([_conjugate(g) for g in _own(arrays, smooth, kept=jax.tree.leaves(ctx.vjp))])
        gradients = [next(found) if wanted else None for wanted in call.program._mask]
        if torch.is_grad_enabled():
            wanted = [g for g in gradients if g is not None]
            sources = [t for t in (*tensors, *smooth) if t.requires_grad]
            refusing = iter(_RefuseSecond.apply(call.program.name, len(wanted), *wanted, *sources))
            gradients = [None if g is None else next(refusing) for g in gradients]
        return None, *gradients


class _RefuseSecond(torch.autograd.Function):
    """Gradients that say, when differentiated themselves, what to do instead."""

    @staticmethod
    def forward(ctx: Any, name: str, count: int, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.name = name
        return tuple([tensor.view_as(tensor) for tensor in tensors[:count]])

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        raise RuntimeError(
            f"jax2torch({ctx.name}) is differentiable once: for second derivatives take the first in JAX, "
            "jax2torch(jax.grad(fn))"
        )


def _slot(leaf: Any) -> Any:
    traced = isinstance(leaf, float | complex | np.ndarray | np.generic | jax.Array)
    return _TRACED if traced else _Static(type(leaf), leaf)


def _held(leaf: Any, fn: Callable[..., Any]) -> Any:
    """A traced argument that is no tensor, safe to keep until backward: a caller's array is copied."""
    if not isinstance(leaf, np.ndarray):
        return leaf
    if leaf.dtype in (np.float64, np.complex128) and not jax.config.jax_enable_x64:
        raise TypeError(
            f"jax2torch({_name(fn)}): a numpy argument is {leaf.dtype}, which JAX would narrow: pass it in "
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
        tensor = torch.from_dlpack(array)
        pointer = tensor.data_ptr()
        outputs.append(tensor.clone() if pointer in taken else tensor)
        taken.add(pointer)
    return outputs


def _conjugate(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.conj() if tensor.is_complex() else tensor


def _device(tensors: Sequence[torch.Tensor]) -> torch.device:
    devices = {tensor.device for tensor in tensors} or {torch.device("cpu")}
    if len(devices) > 1:
        listed = ", ".join(sorted(map(str, devices)))
        raise ValueError(
            f"tensors are on different devices ({listed}): move them to one with tensor.to(device)"
        )
    return devices.pop()


def on_device(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """A context for jitted calls: computes CPU tensors on the CPU where JAX's default is an accelerator;
    CUDA arrays carry their own device.
    """
    if device.type == "cpu" and jax.default_backend() != "cpu":
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    return contextlib.nullcontext()


@functools.cache
def _cuda_devices() -> int:
    try:
        return len(jax.local_devices(backend="cuda"))
    except RuntimeError:
        return 0


def check_device(device: torch.device, name: str) -> None:
    """Raise for a device that torch and this JAX do not share.

    Raises:
        RuntimeError: with what to install, or which argument to set.
    """
    if device.type == "cpu":
        return
    if device.type != "cuda":
        raise RuntimeError(f"{name} is on {device}: the bridge works on cpu and cuda; move it to one of them")
    if (device.index or 0) >= _cuda_devices():
        raise RuntimeError(
            f"{name} is on {device}, but this jaxlib sees {_cuda_devices()} CUDA devices: install JAX for "
            "CUDA (pip install 'jax[cuda12]'), or keep torch on the CPU (device='cpu')"
        )


def _dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _name(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__name__", type(fn).__name__)


def _path_name(path: tuple[Any, ...]) -> str:
    """A pytree path as a parameter's name: keys and indices joined by slashes (torch forbids dots)."""
    return jax.tree_util.keystr(path, simple=True, separator="/").replace(".", "_") or "value"


def _argument_name(path: tuple[Any, ...]) -> str:
    """A path within `(args, kwargs)` in the words of the call: `0['w']`, `scale`."""
    position = path[1]
    first = position.key if hasattr(position, "key") else position.idx
    return f"{first!r}{jax.tree_util.keystr(path[2:])}"
