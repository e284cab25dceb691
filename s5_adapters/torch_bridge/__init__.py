"""JAX functions inside torch: values, gradients and parameters, on CPU and CUDA.

`jax2torch(fn)` makes a torch function of any JAX function of pytrees. `JaxModule` holds a JAX model's
parameters as torch parameters, so that torch's optimisers, gradient clipping, checkpoints and DDP work on
them untouched. Importing this changes nothing of JAX's settings; `settle_jax`, which building a model calls,
does.

The public packages of this kind no longer serve: jax2torch 0.0.7 needs `jax.dlpack.to_dlpack`, which is
gone, and torch-jax-interop 0.0.8 traces again at every call and fails on expanded gradients.
"""

from s5_adapters.torch_bridge.arrays import (
    between_graphs,
    check_call,
    check_device,
    in_transform,
    on_device,
    to_jax,
    to_torch,
)
from s5_adapters.torch_bridge.buckets import Buckets, pad_rows
from s5_adapters.torch_bridge.functions import jax2torch
from s5_adapters.torch_bridge.modules import JaxModule
from s5_adapters.torch_bridge.normalizer import Normalizer
from s5_adapters.torch_bridge.process import settle_jax

__all__ = [
    "Buckets",
    "JaxModule",
    "Normalizer",
    "between_graphs",
    "check_call",
    "check_device",
    "in_transform",
    "jax2torch",
    "on_device",
    "pad_rows",
    "settle_jax",
    "to_jax",
    "to_torch",
]
