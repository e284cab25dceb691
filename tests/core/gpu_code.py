"""GPU code of a program without a GPU: its kernels' Triton IR, and what Triton's compiler makes of that."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

TRITON_CALL = "__gpu$xla.gpu.triton"


def problem_shapes(length: int, batch: int, parts: int, width: int, dtype: Any = jnp.float32) -> list[Any]:
    """Decay, inputs, starts, initial state and states of a recurrence, as shapes."""
    shape = (length, batch, parts, width)
    return [
        jax.ShapeDtypeStruct(*of)
        for of in (
            ((parts, width), jnp.float32),
            (shape, dtype),
            (shape[:2], jnp.bool_),
            (shape[1:], jnp.float32),
            (shape, jnp.float32),
        )
    ]


def lower_for_cuda(function: Callable[..., Any], *shapes: Any) -> Any:
    """Lower a function for CUDA, where no GPU is."""
    # Since 0.11 JAX asks which GPU it is; 0.10 does not look.
    device = AbstractDevice("NVIDIA H100", num_cores=132, platform="gpu")
    with use_abstract_mesh(AbstractMesh((), (), abstract_device=device)):
        return jax.jit(function).trace(*shapes).lower(lowering_platforms=("cuda",))


def triton_ir(lowered: Any) -> dict[str, str]:
    """The Triton IR of every kernel of a lowered program, by its name."""
    from jax._src.interpreters import mlir
    from jax._src.lib import triton
    from jaxlib.mlir import ir

    kernels = {}

    def visit(op: Any) -> Any:
        if op.name == "stablehlo.custom_call" and TRITON_CALL in str(op.attributes["call_target_name"]):
            config = ir.DictAttr(op.attributes["mhlo.backend_config"])
            name, code = ir.StringAttr(config["name"]).value, ir.StringAttr(config["ir"]).value_bytes
            with mlir.make_ir_context() as context:
                triton.dialect.register_dialect(context)
                kernels[name] = str(ir.Module.parse(code))
        return ir.WalkResult.ADVANCE

    lowered.compiler_ir("stablehlo").operation.walk(visit)
    return kernels


@dataclass(frozen=True)
class Compiled:
    """What became of a kernel."""

    registers: int
    spilled_bytes: int
    barriers: int
    instructions: Counter[str]
    """Of the machine's code, by name; IMAD.WIDE, which makes addresses, by itself."""
    accesses: Counter[str]
    """Of global memory, in PTX: the instruction with its width."""


def compile_triton(code: str, architecture: int, folder: Path) -> Compiled:
    """Compile Triton IR for ``sm_<architecture>``, as XLA does, one warp a program."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler.compiler import IRSource, ir, make_backend

    source = folder / "kernel.ttir"
    source.write_text(code)
    backend, context = make_backend(GPUTarget("cuda", architecture, 32)), ir.context()
    kernel = IRSource(str(source), context, backend)
    options = backend.parse_options({"num_warps": 1, "num_stages": 1, "enable_fp_fusion": True})
    stages: dict[str, Any] = {}
    backend.add_stages(stages, options, kernel.language)
    module, about = kernel.make_ir(None, options, None, None, context), dict[str, Any]()
    for stage in ("ttir", "ttgir", "llir", "ptx"):
        module = stages[stage](module, about)
    ptx = folder / "kernel.ptx"
    ptx.write_text(str(module))
    return assemble(ptx, folder / "kernel.cubin", architecture)


def assemble(ptx: Path, binary: Path, architecture: int) -> Compiled:
    """Make machine code of PTX."""
    target = f"sm_{architecture}{'a' if architecture >= 90 else ''}"
    command = [tool("ptxas" if architecture < 90 else "ptxas-blackwell"), "-v", f"--gpu-name={target}"]
    run = subprocess.run([*command, ptx, "-o", binary], capture_output=True, text=True, check=True)
    listing = subprocess.run([tool("nvdisasm"), "-c", binary], capture_output=True, text=True, check=True)

    def figure(pattern: str) -> int:
        found = re.search(pattern, run.stderr)
        assert found is not None, f"no {pattern!r} in the assembler's report:\n{run.stderr}"
        return int(found[1])

    instruction = r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?\w+ )?([A-Z0-9]+(?:\.WIDE)?)"
    return Compiled(
        registers=figure(r"Used (\d+) registers"),
        spilled_bytes=figure(r"(\d+) bytes spill stores") + figure(r"(\d+) bytes spill loads"),
        barriers=figure(r"used (\d+) barriers"),
        instructions=Counter(re.findall(instruction, listing.stdout, re.M)),
        accesses=Counter(re.findall(r"\b((?:ld|st)\.global[\w.:]*)", ptx.read_text())),
    )


def tool(name: str) -> Path:
    """One of NVIDIA's tools that Triton brings."""
    import triton

    return Path(triton.__file__).parent / "backends/nvidia/bin" / name
