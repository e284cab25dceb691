"""The Triton kernels, compiled by Triton's own compiler for three generations of GPUs that are not here."""

from __future__ import annotations

from pathlib import Path

import pytest

from s5_adapters.core.recurrence import pallas as scan_pallas

from .gpu_code import Compiled, compile_triton, lower_for_cuda, problem_shapes, triton_ir

pytest.importorskip("triton", reason="Triton's compiler is not installed; it exists for Linux alone")

LENGTH, BATCH, PARTS, WIDTH = SIZE = (1024, 64, 2, 128)
ARCHITECTURES = {"A100": 80, "H100, H200": 90, "B200": 100}
WARPS_WANTED = 8
"""Warps that must fit the registers of a processor: with 8 KiB of loads each, more than an H200 asks for."""


@pytest.fixture(autouse=True)
def _without_coalescing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the pass that chooses which thread reads what: where a lane is a thread it has no choice.

    Its time grows with the cube of the kernel's size, to ten seconds here. Without it the machine code of
    these kernels is the same, byte for byte (compared at 16 steps, sm_90a).
    """
    from triton._C.libtriton import passes

    monkeypatch.setattr(passes.ttgpuir, "add_coalesce", lambda manager: None)


@pytest.fixture(scope="module")
def kernels() -> dict[str, str]:
    decay, inputs, starts, initial, states = problem_shapes(*SIZE)
    forward = lower_for_cuda(scan_pallas.pallas, decay, inputs, starts, initial)
    adjoint = lower_for_cuda(scan_pallas.pallas_adjoint, decay, states, starts, states, initial)
    return triton_ir(forward) | triton_ir(adjoint)


def check(compiled: Compiled, loads: int, stores: int) -> None:
    """Hold what makes a walk fast: all in registers, no waiting for others, whole lines of memory."""
    assert compiled.spilled_bytes == 0
    assert compiled.barriers == 0
    assert compiled.registers <= 65_536 // (32 * WARPS_WANTED)
    assert not {"LDL", "STL", "LDS", "STS", "BAR"} & set(compiled.instructions)
    # A warp's 32 threads read 32 neighbouring numbers in one instruction, and no number is read twice.
    assert set(compiled.accesses) == {"ld.global.b32", "st.global.b32"}
    assert compiled.accesses["ld.global.b32"] == loads
    assert compiled.accesses["st.global.b32"] == stores
    # Addresses are constants in the instructions, and products are fused.
    assert compiled.instructions["IMAD.WIDE"] <= 8
    assert compiled.instructions["FMUL"] <= 8


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_a_block_of_the_walk_is_loads_arithmetic_and_stores(
    kernels: dict[str, str], architecture: int, tmp_path: Path
) -> None:
    assert set(kernels) == {"resettable_scan", "resettable_scan_adjoint"}
    forward, adjoint = scan_pallas.FORWARD_STEPS, scan_pallas.ADJOINT_STEPS
    # Once before the loop and once in it, and a word of resets each; decay and first state.
    check(
        compile_triton(kernels["resettable_scan"], architecture, tmp_path),
        loads=2 * PARTS * forward + 2 + 2 * PARTS,
        stores=PARTS * forward,
    )
    check(
        compile_triton(kernels["resettable_scan_adjoint"], architecture, tmp_path),
        loads=2 * 2 * PARTS * adjoint + 2 + 2 * PARTS,
        stores=PARTS * adjoint + 2 * PARTS,
    )
