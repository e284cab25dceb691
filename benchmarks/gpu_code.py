"""What compilers make of the GPU kernels, without a GPU: registers, and the cost of a block of steps.

    python benchmarks/gpu_code.py               # needs `triton`, which `make test` sets up
    python benchmarks/gpu_code.py --size 1024 64 2 128 --architecture 80
    python benchmarks/gpu_code.py --ptx FILE    # any PTX, such as what MOSAIC_GPU_DUMP_PTX=1 leaves

A block is the body of the longest loop. "cycles" are those for which its instructions say they hold the next
one back: what a block takes where memory answers at once. "left" is how many loads are under way, at least,
whenever the loop waits for others. Written to ``benchmarks/results/gpu-code-sm_<architecture>.json``.

To dump the Mosaic kernels' PTX: ``MOSAIC_GPU_DUMP_PTX=1 MOSAIC_GPU_DUMP_TO=FOLDER python
benchmarks/gpu_program.py --smoke``, with JAX's CUDA plugin.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from _common import RESULTS, table

from s5_adapters.core.recurrence import pallas as scan_pallas
from tests.core.gpu_code import assemble, compile_triton, lower_for_cuda, problem_shapes, tool, triton_ir


class Instruction(NamedTuple):
    """One instruction of the machine's code, with the control bits that sm_70 and later have."""

    address: int
    text: str
    stall: int
    """Cycles before the next may issue."""
    counter: int
    """Which of six counters its result counts down, 7 for none."""
    waits: int
    """Bits of the counters that must be at zero before it."""


def listing(binary: Path) -> tuple[list[Instruction], dict[str, int]]:
    """Return a kernel's instructions, and the addresses of its labels."""
    command = [tool("nvdisasm"), "-c", "-hex", binary]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    first = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;\s+/\* 0x[0-9a-f]{16} \*/")
    second = re.compile(r"^\s+/\* 0x([0-9a-f]{16}) \*/")
    instructions, labels, waiting, begun = [], dict[str, int](), list[str](), None
    for line in lines:
        if label := re.match(r"^(\.L_\w+):", line):
            waiting.append(label[1])
        elif found := first.search(line):
            begun = int(found[1], 16), found[2]
            labels |= dict.fromkeys(waiting, begun[0])
            waiting = []
        elif begun and (found := second.match(line)):
            control = int(found[1], 16) >> 41
            fields = control & 0xF, control >> 5 & 7, control >> 11 & 0x3F
            instructions.append(Instruction(*begun, *fields))
            begun = None
    return instructions, labels


def block(binary: Path) -> dict[str, Any]:
    """Describe the longest loop."""
    instructions, labels = listing(binary)
    at = {instruction.address: i for i, instruction in enumerate(instructions)}
    loops = []
    for i, instruction in enumerate(instructions):
        target = re.search(r"\bBRA\b.*\((\.L_\w+)\)", instruction.text)
        if target and labels[target[1]] < instruction.address:
            loops.append(instructions[at[labels[target[1]]] : i + 1])
    body = max(loops, key=len)
    under_way, left = [0] * 6, list[int]()
    for turn in range(3):  # by the third, what is under way at the loop's top is what it always is
        for instruction in body:
            waited = [i for i in range(6) if instruction.waits >> i & 1 and under_way[i]]
            for i in waited:
                under_way[i] = 0
            if waited and turn == 2:
                left.append(sum(under_way))
            if "LDG" in instruction.text and instruction.counter < 6:
                under_way[instruction.counter] += 1
    return {
        "instructions": len(body),
        "cycles": sum(instruction.stall for instruction in body),
        "loads": sum("LDG" in instruction.text for instruction in body),
        "stores": sum("STG" in instruction.text for instruction in body),
        "left": min(left, default=None),
    }


def main() -> int:
    """Compile the kernels, or take PTX, and describe them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=4, default=(1024, 64, 2, 128), metavar="N")
    parser.add_argument("--architecture", type=int, default=90)
    parser.add_argument("--ptx", type=Path, nargs="+", default=[], help="describe these instead")
    options = parser.parse_args()

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        if not options.ptx:
            decay, inputs, starts, initial, states = problem_shapes(*options.size)
            kernels: dict[str, str] = {}
            for function, arguments in (
                (scan_pallas.pallas, (decay, inputs, starts, initial)),
                (scan_pallas.pallas_adjoint, (decay, states, starts, states, initial)),
            ):
                kernels |= triton_ir(lower_for_cuda(function, *arguments))
            for name, code in kernels.items():
                compiled = compile_triton(code, options.architecture, Path(folder))
                rows.append({"kernel": name, "registers": compiled.registers} | block(binary))
        for path in options.ptx:
            compiled = assemble(path, binary, options.architecture)
            rows.append({"kernel": path.stem, "registers": compiled.registers} | block(binary))
    names = list(rows[0])
    print(table(names, [[str(row[name]) for name in names] for row in rows]))
    if not options.ptx:
        record = {"benchmark": "gpu-code", "size": list(options.size), "rows": rows}
        path = RESULTS / f"gpu-code-sm_{options.architecture}.json"
        path.write_text(json.dumps(record, indent=2) + "\n")
        print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
