"""Whether tensors still have the values that something was computed from.

Torch counts a tensor's versions. What is written through `.data`, through a numpy view or by another process
is not counted, and freed memory comes back under the same address. Comparing the values themselves is safe
and takes as long as a small network's step. So parameters are watched: they note when they hand out their
memory, and while anybody holds it, and only then are values compared.
"""

from __future__ import annotations

import ctypes
import functools
import operator
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.optim import optimizer as torch_optimizer

__all__ = ["PARAMETERS", "Values", "unwatch"]

_MAY_ALIAS = (
    "__array__",
    "__dlpack__",
    "__getitem__",
    "detach",
    "flatten",
    "numpy",
    "ravel",
    "reshape",
    "share_memory_",
    "storage",
    "unbind",
    "untyped_storage",
    "view",
)
"""Methods whose result may be the tensor's memory under another name, or be made into it."""

_version, _address = operator.attrgetter("_version"), torch.Tensor.data_ptr
_uses = torch._C._storage_Use_Count
_OWN_USES = 2
"""Of a storage by its tensor, and by the object that asks."""
_memcmp = ctypes.CDLL(None if os.name == "posix" else "msvcrt").memcmp
_memcmp.argtypes, _memcmp.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t], ctypes.c_int


class Watched(nn.Parameter):
    """A parameter that notes when its memory is handed out; parameters become one where they are."""

    handed_out: ClassVar[int] = 0
    """How often it was, by all of them."""

    @property
    def data(self) -> torch.Tensor:
        """Torch's `data`."""
        Watched.handed_out += 1
        # Torch's types have an attribute where it has a descriptor.
        data: torch.Tensor = torch.Tensor.data.__get__(self)  # type: ignore[attr-defined]
        return data

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        Watched.handed_out += 1
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]


PARAMETERS = (nn.Parameter, Watched)
"""The classes of parameters that are torch's own, or were."""


def _noting(name: str) -> Callable[..., Any]:
    method = getattr(torch.Tensor, name)

    @functools.wraps(method)
    def noting(self: Watched, *args: Any, **kwargs: Any) -> Any:
        Watched.handed_out += 1
        return method(self, *args, **kwargs)

    return noting


for _name in _MAY_ALIAS:
    setattr(Watched, _name, _noting(_name))


# Torch's optimisers step through all parameters in one kernel where every one is of these classes, by name.
torch_optimizer._foreach_supported_types.append(Watched)  # private


def unwatch(parameters: Iterable[torch.Tensor]) -> None:
    """Make parameters torch's own again, before they are trained: operations dispatch a subclass more slowly.

    Whoever holds `Values` of theirs compares from now on, and new `Values` watch them again.
    """
    Watched.handed_out += 1
    for parameter in parameters:
        if type(parameter) is Watched:
            parameter.__class__ = nn.Parameter  # type: ignore[assignment]  # narrowed by the line above


class Values:
    """The values that tensors have now.

    Args:
        tensors: parameters, watched from now on, or other tensors, whose values are compared every time.
    """

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        """Copy them."""
        for tensor in tensors:
            if type(tensor) is nn.Parameter:
                tensor.__class__ = Watched
        self.copies = [
            torch.Tensor.detach(tensor).clone(memory_format=torch.contiguous_format) for tensor in tensors
        ]
        self._on_cpu = all(copy.device.type == "cpu" for copy in self.copies)
        self._places = [(copy.shape, copy.dtype, copy.data_ptr(), copy.nbytes) for copy in self.copies]
        self._note(tensors)

    def are_those_of(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Tell whether these tensors have the same shapes, dtypes and values, bit by bit on the CPU."""
        if len(tensors) != len(self.copies):
            return False
        if (
            self._handed_out == Watched.handed_out
            and all(map(operator.is_, tensors, self._tensors))
            and [*map(_version, tensors)] == self._versions
            and [*map(_address, tensors)] == self._addresses
        ):
            return True
        same = self._same_bits(tensors) if self._on_cpu else all(map(_same, tensors, self.copies))
        if same:
            self._note(tensors)
        return same

    def _note(self, tensors: Sequence[torch.Tensor]) -> None:
        """Remember what tells, cheaply, that nothing was written since."""
        self._tensors = list(tensors)
        self._versions = [*map(_version, tensors)]
        self._addresses = [*map(_address, tensors)]
        # Nothing tells where a tensor cannot be watched, or while somebody else holds its memory.
        self._handed_out = None if any(map(_is_exposed, tensors)) else Watched.handed_out

    def _same_bits(self, tensors: Sequence[torch.Tensor]) -> bool:
        for tensor, (shape, dtype, address, size) in zip(tensors, self._places, strict=True):
            if tensor.shape != shape or tensor.dtype != dtype or tensor.device.type != "cpu":
                return False
            whole = tensor if tensor.is_contiguous() else tensor.contiguous()
            if _memcmp(whole.data_ptr(), address, size):
                return False
        return True


def _is_exposed(tensor: torch.Tensor) -> bool:
    """Tell whether values may change without a trace: it is not watched, or others hold its memory."""
    storage = torch.Tensor.untyped_storage(tensor)
    shared = _uses(storage._cdata) > _OWN_USES or tensor.is_shared()
    return shared or type(tensor) is not Watched


def _same(tensor: torch.Tensor, copy: torch.Tensor) -> bool:
    same = tensor.shape == copy.shape and tensor.dtype == copy.dtype and tensor.device == copy.device
    return same and torch.equal(tensor, copy)
