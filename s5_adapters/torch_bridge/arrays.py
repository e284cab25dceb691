"""Tensors as JAX arrays and back, on CPU and CUDA, and the calls that no bridge can serve."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
import torch

from s5_adapters.core.xla.platform import is_64_bit
from s5_adapters.core.xla.processes import refuse_forked_process

__all__ = [
    "between_graphs",
    "check_call",
    "check_device",
    "common_device",
    "in_transform",
    "on_device",
    "to_jax",
    "to_torch",
]

P = ParamSpec("P")
R = TypeVar("R")

_WIDE = {torch.float64: "float32", torch.complex128: "complex64"}
_INT32 = torch.iinfo(torch.int32)
_NO_NUMPY = frozenset({torch.bfloat16})
_COPIED_BYTES = 1 << 18
"""Up to this size a copy of a CPU array (4 to 35 us) takes less time than dlpack (50 us)."""
_NO_CONTEXT = contextlib.nullcontext()
in_transform = torch._C._are_functorch_transforms_active
"""Whether a transform of `torch.func` is under way, inside which tensors have no values of their own."""
_tracing_state = torch._C._get_tracing_state
_is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # torch 2.6 and later


def to_jax(tensor: torch.Tensor, name: str = "tensor") -> np.ndarray | jax.Array:
    """Return the tensor as something a jitted function takes, without a copy where memory allows.

    On CPU that is a numpy view (which `jax.jit` takes in place when it is 64-byte aligned, as torch's own
    allocations are), on CUDA a `jax.Array` by dlpack. The result aliases the tensor: use it and be done
    before writing to either.

    Args:
        tensor: any dense tensor on CPU or CUDA. int64 becomes int32 when every value fits.
        name: what an error calls it.

    Raises:
        TypeError: float64 or complex128 while `jax_enable_x64` is off: they would be narrowed without a word.
        OverflowError: an int64 value beyond int32 while `jax_enable_x64` is off.
        RuntimeError: a device that JAX cannot reach, or a tensor without memory of its own, as torch's
            tracers and transforms hand them round.
    """
    tensor = tensor.detach()
    if tensor.dtype in _WIDE and not is_64_bit():
        narrow = _WIDE[tensor.dtype]
        raise TypeError(
            f"{name} is {dtype_name(tensor)}, which JAX would narrow to {narrow}: pass it as {narrow} "
            f"(tensor.to(torch.{narrow})), or set jax.config.update('jax_enable_x64', True)"
        )
    if tensor.dtype == torch.int64 and not is_64_bit():
        if tensor.numel() and not (_INT32.min <= int(tensor.min()) and int(tensor.max()) <= _INT32.max):
            raise OverflowError(
                f"{name} is int64 with values from {int(tensor.min())} to {int(tensor.max())}, beyond JAX's "
                "int32: set jax.config.update('jax_enable_x64', True) to keep them"
            )
        tensor = tensor.to(torch.int32)
    tensor = tensor.contiguous().resolve_conj().resolve_neg()
    if tensor.device.type == "cpu":
        try:
            if tensor.dtype in _NO_NUMPY:
                return _from_dlpack(tensor)
            memory: np.ndarray = tensor.numpy()
            return memory
        except RuntimeError as error:
            raise RuntimeError(
                f"{name} has no memory that JAX could read ({type(tensor).__name__}): inside torch.func's "
                "transforms and torch.export only functions made by jax2torch can be called"
            ) from error
    check_device(tensor.device, name)
    return _from_dlpack(tensor)


def _from_dlpack(tensor: torch.Tensor) -> jax.Array:
    array: jax.Array = jax.dlpack.from_dlpack(tensor)
    return array


def to_torch(array: jax.Array) -> torch.Tensor:
    """Return the array as a tensor on the same device, once it is computed.

    Small arrays on the CPU are copied (but bfloat16, which numpy lacks), in a tenth of the time that dlpack
    takes to hand one over; of others the tensor is the memory itself: writing to it writes to the array.
    """
    on_cpu = next(iter(array.devices())).platform == "cpu"
    if on_cpu and array.nbytes <= _COPIED_BYTES and array.dtype.isbuiltin == 1:  # 2: bfloat16 and the like
        return torch.from_numpy(np.array(array))
    return torch.utils.dlpack.from_dlpack(array.block_until_ready())


def check_call(caller: str) -> None:
    """Raise where a call from torch into JAX would hang or leave a wrong program behind.

    Args:
        caller: what the error names.

    Raises:
        RuntimeError: in a process forked from one that computes with JAX; under `torch.jit.trace`, hence
            under `torch.onnx`'s tracing exporter, which would record the results as constants; and under
            `torch.export`, which cannot see what JAX computes.
    """
    refuse_forked_process(caller)
    if _tracing_state() is not None or _is_exporting():
        raise RuntimeError(
            f"{caller}: torch.jit.trace, torch.onnx and torch.export cannot follow what JAX computes (a "
            "trace would hold constants): save the policy and make a program of it with "
            "`s5-adapters export POLICY --format stablehlo`"
        )


def between_graphs(fn: Callable[P, R]) -> Callable[P, R]:
    """Let `torch.compile` call the function as it is: graphs end before it and go on after it."""
    # torch.compiler.disable, which is public, imports all of the compiler.
    eager: Callable[P, R] = torch._disable_dynamo(fn)  # type: ignore[attr-defined]

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return eager(*args, **kwargs) if torch.compiler.is_compiling() else fn(*args, **kwargs)

    return call


def common_device(tensors: Sequence[torch.Tensor]) -> torch.device:
    """Return the one device that all tensors are on; the CPU where there are none.

    Raises:
        ValueError: they are on several.
    """
    devices = {tensor.device for tensor in tensors} or {torch.device("cpu")}
    if len(devices) > 1:
        listed = ", ".join(sorted(map(str, devices)))
        raise ValueError(
            f"tensors are on different devices ({listed}): move them to one with tensor.to(device)"
        )
    return devices.pop()


def on_device(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return a context for jitted calls: CPU tensors compute on the CPU where JAX's default is a GPU;
    CUDA arrays carry their own device.
    """
    if device.type == "cpu" and jax.default_backend() != "cpu":
        context: contextlib.AbstractContextManager[Any] = jax.default_device(
            jax.local_devices(backend="cpu")[0]
        )
        return context
    return _NO_CONTEXT


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


def dtype_name(tensor: torch.Tensor) -> str:
    """Return the tensor's dtype without torch's prefix."""
    return str(tensor.dtype).removeprefix("torch.")


@functools.cache
def _cuda_devices() -> int:
    try:
        return len(jax.local_devices(backend="cuda"))
    except RuntimeError:
        return 0
