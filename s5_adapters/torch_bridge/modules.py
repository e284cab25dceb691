"""A JAX model's parameters as a torch module, and what acting prepares of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import torch
from torch import nn

from s5_adapters.torch_bridge.arrays import (
    between_graphs,
    check_call,
    check_device,
    common_device,
    dtype_name,
    in_transform,
    on_device,
    to_jax,
)
from s5_adapters.torch_bridge.process import settle_jax
from s5_adapters.torch_bridge.watched import Values

__all__ = ["JaxModule"]

PyTree = Any


class JaxModule(nn.Module):
    """A JAX model's parameters as a torch module: one `nn.Parameter` per leaf, named by its path
    (`memory/decay`).

    Torch owns the values; JAX sees them where they lie. What acting needs is computed from them by
    `prepared`, and computed again when any of their values has changed, however it was written.

    Args:
        params: a pytree of floating arrays, as a core module's `init` returns it. The values are copied.
        former_name: the name that a parameter had when state dicts were written that are still to be read.
            The parameters also stand in the order of those names' first parts, since an optimiser's saved
            state tells them apart by their order alone.
    """

    def __init__(self, params: PyTree, former_name: Callable[[str], str] | None = None) -> None:
        """Copy `params` into torch parameters; TypeError for a leaf that is not floating."""
        super().__init__()
        settle_jax()
        paths, self._treedef = jax.tree_util.tree_flatten_with_path(params)
        self._names = tuple(_path_name(path) for path, _ in paths)
        self._former_name = former_name
        leaves = {name: leaf for name, (_, leaf) in zip(self._names, paths, strict=True)}
        order = sorted(leaves, key=lambda name: former_name(name).split("/")[0]) if former_name else leaves
        for name in order:
            # In torch's own memory: 64-byte aligned, so that XLA reads it in place.
            value = torch.from_numpy(np.array(leaves[name])).clone()
            if not value.is_floating_point():
                raise TypeError(
                    f"parameter {name!r} is {dtype_name(value)}; torch trains floating arrays only"
                )
            self.register_parameter(name, nn.Parameter(value))
        self._prepared: dict[Callable[..., PyTree], tuple[Values, PyTree]] = {}

    @property
    def device(self) -> torch.device:
        """Where the parameters are, by the first of them."""
        return next(iter(self._parameters.values())).device  # type: ignore[union-attr]  # none is None

    @between_graphs
    def tree(self) -> PyTree:
        """Return the parameters themselves, in the pytree the model expects: what to pass to a `jax2torch`
        function.
        """
        return jax.tree.unflatten(self._treedef, self._leaves())

    def arrays(self) -> PyTree:
        """Return the same pytree as arrays for a jitted call. They alias the parameters: do not keep them."""
        names = zip(self._names, self._leaves(), strict=True)
        return jax.tree.unflatten(self._treedef, [to_jax(leaf, name) for name, leaf in names])

    def snapshot(self) -> PyTree:
        """Return the same pytree as numpy copies, to save or to hand to the core."""
        return jax.tree.unflatten(
            self._treedef, [leaf.detach().cpu().numpy().copy() for leaf in self._leaves()]
        )

    def load_tree(self, params: PyTree) -> None:
        """Copy values in, leaf by leaf.

        Raises:
            ValueError: another structure, or another shape for a leaf.
        """
        leaves = jax.tree.leaves(params)
        treedef: object = jax.tree.structure(params)
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

    def replace_tree(self, params: PyTree) -> None:
        """Take copies of parameters of whatever shapes. The `nn.Parameter` objects stay those that an
        optimiser holds; its own state has to be of the new shapes, or empty.

        Raises:
            ValueError: another structure.
        """
        treedef: object = jax.tree.structure(params)
        if treedef != self._treedef:
            raise ValueError(f"parameters have the structure {treedef}, expected {self._treedef}")
        self.forget()
        for mine, leaf in zip(self._leaves(), jax.tree.leaves(params), strict=True):
            new = torch.as_tensor(leaf).to(mine, copy=True)
            mine.grad = None
            # A graph that is still alive keeps what accumulates the gradient of the old shape. Torch drops it
            # where the dtype changes, so it changes on the way.
            mine.data = new.to(torch.float16 if new.dtype != torch.float16 else torch.float32)
            mine.data = new

    def tree_in(self, state_dict: Mapping[str, torch.Tensor], prefix: str = "") -> PyTree | None:
        """Return the parameters as a state dict holds them, of whatever shapes; None where one is missing."""
        names = [self._name_in(state_dict, prefix, name) for name in self._names]
        if not all(name in state_dict for name in names):
            return None
        return jax.tree.unflatten(self._treedef, [state_dict[name] for name in names])

    @between_graphs
    def prepared(self, prepare: Callable[..., PyTree], *beside: torch.Tensor) -> PyTree:
        """Return `prepare(params, *beside)`, computed once for the tensors' values. Nothing in it
        aliases torch's memory.

        Args:
            prepare: a function of arrays; the same object at every call, since it is the cache's key.
            beside: tensors that are used together with the parameters, on their device.

        Raises:
            RuntimeError: inside a transform of `torch.func`, under `torch.jit.trace` or `torch.export`, or
                in a process forked from one that computes with JAX.
        """
        check_call("JaxModule.prepared")
        if in_transform():
            raise RuntimeError(
                "JaxModule.prepared: inside a transform of torch.func there are no values to prepare: call a "
                "function made by jax2torch with the module's tree()"
            )
        leaves = [*self._leaves(), *beside]
        held = self._prepared.get(prepare)
        if held is None or not held[0].are_those_of(leaves):
            names = [*self._names, *[f"beside[{i}]" for i in range(len(beside))]]
            values = Values(leaves)
            with on_device(common_device(leaves)):
                arrays = [to_jax(copy, name) for name, copy in zip(names, values.copies, strict=True)]
                own, others = arrays[: len(self._names)], arrays[len(self._names) :]
                value = jax.block_until_ready(prepare(jax.tree.unflatten(self._treedef, own), *others))
            held = self._prepared[prepare] = (values, value)
        return held[1]

    def forget(self) -> None:
        """Drop everything prepared from the parameters, and with it its memory."""
        self._prepared.clear()

    def __getstate__(self) -> dict[str, Any]:
        """Return everything but the cache, which holds JAX arrays, for pickling and copying."""
        return {**self.__dict__, "_prepared": {}}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        for name in self._names:
            found = self._name_in(state_dict, prefix, name)
            if found != prefix + name:
                state_dict[prefix + name] = state_dict.pop(found)
        super()._load_from_state_dict(state_dict, prefix, *others)

    def _name_in(self, state_dict: Mapping[str, torch.Tensor], prefix: str, name: str) -> str:
        """Return a parameter's name in a state dict: its own, or the former where only that is there."""
        former = prefix + (name if self._former_name is None else self._former_name(name))
        return former if prefix + name not in state_dict and former in state_dict else prefix + name

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> JaxModule:
        self.forget()
        super()._apply(fn, recurse)
        for name, leaf in zip(self._names, self._leaves(), strict=True):
            check_device(leaf.device, f"parameter {name!r}")
        return self

    def _leaves(self) -> list[nn.Parameter]:
        return list(map(self._parameters.__getitem__, self._names))  # type: ignore[arg-type]


def _path_name(path: tuple[Any, ...]) -> str:
    """Return a pytree path as a parameter's name: keys and indices joined by slashes (torch forbids dots)."""
    return jax.tree_util.keystr(path, simple=True, separator="/").replace(".", "_") or "value"
