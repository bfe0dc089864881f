"""The counts of bench.instructions, and that the kernels keep to theirs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench import instructions

NVCC = shutil.which("nvcc")
LISTING = """
\t\tFunction : _Z6kernel
        /*0000*/                   MOV R1, R2 ;                 /* 0x0123 */
                                                                /* 0x4567 */
        /*0010*/                   LDSM.16.MT88.4 R4, [R8] ;    /* 0x0123 */
        /*0020*/              @P0 HMMA.16816.F32.BF16 R0, R4, R6, R0 ;
        /*0030*/              @!P1 BRA 0x10 ;
        /*0040*/                   HMMA.16816.F32.BF16 R0, R4, R6, R0 ;
        /*0050*/                   MUFU.RCP R3, R3 ;
        /*0060*/                   BRA.U 0x40 ;
        /*0070*/                   STL [R1], R2 ;
        /*0080*/               @P2 BRA 0x0 ;
        /*0090*/                   EXIT ;
        /*00a0*/                   BRA 0xa0 ;
"""
USAGE = " Function _Z6kernel:\n  REG:32 STACK:8 SHARED:1024 LOCAL:0 CONSTANT[0]:864 TEXTURE:0\n"


def test_loops_and_instructions_are_counted(monkeypatch):
    outputs = {"-sass": LISTING, "-res-usage": USAGE}
    monkeypatch.setattr(instructions, "read", lambda tool, option, *_: outputs[option])
    (counts,) = instructions.count("cuobjdump", "90", Path("file")).values()
    assert counts == instructions.Counts(
        registers=32, stack=8, shared=1024, local=1, divisions=1, instructions=11, main_loop=9,
        steps=(3, 3),
    )  # fmt: skip


def test_the_table_has_every_label():
    kernel = instructions.Counts(32, 0, 0, 0, 0, 10, 9, (3, 4))._asdict()
    table = instructions.table({"before": {"kernel<1>": kernel}, "after": {"kernel<2>": kernel}})
    assert "### before" in table
    assert "| `kernel<2>` | 32 |  |  |  |  | 10 | 9 | 3, 4 |" in table


def cuobjdump():
    try:
        return instructions.find_cuobjdump()
    except SystemExit:
        return None


@pytest.fixture(scope="module", params=["weight_grad", "pack_filters"])
def counts(request, tmp_path_factory):
    if NVCC is None or (tool := cuobjdump()) is None:
        pytest.skip("there is no nvcc or no cuobjdump")
    return compiled(tool, f"{request.param}/cuda/{request.param}.cu", tmp_path_factory)


def compiled(tool, source, tmp_path_factory, architecture="90"):
    folder = tmp_path_factory.mktemp("cubin")
    cubin = instructions.compile_kernels(instructions.CSRC / source, architecture, folder)
    return instructions.count(tool, architecture, cubin)


@pytest.mark.parametrize(
    "source",
    [
        "bn_relu/cuda/bn_relu.cu",
        "bn_relu/cuda/statistics.cu",
        "masked_weight/cuda/masked_weight.cu",
        "masked_weight/cuda/selection.cu",
    ],
)
def test_numbers_are_in_registers(source, tmp_path_factory):
    if NVCC is None or (tool := cuobjdump()) is None:
        pytest.skip("there is no nvcc or no cuobjdump")
    for name, kernel in compiled(tool, source, tmp_path_factory).items():
        assert kernel.local == kernel.stack == 0, name
        assert kernel.registers <= 64, name  # four blocks of 256 threads on a multiprocessor


def test_no_kernel_divides_but_where_it_computes_anew(counts):
    for name, kernel in counts.items():
        assert kernel.local == 0, name
        assert kernel.divisions == 0 or "finish_kernel" in name, name


def test_a_step_of_the_fast_path_keeps_to_its_instructions(counts):
    """A step has 16 pixels of 32 channels and 9 taps of 8 filters, which are 18 products."""
    most = {"13__nv_bfloat16Li2ELb0ELb1": (62,), "13__nv_bfloat16Li2ELb1ELb1": (82, 102)}
    for kind, bounds in most.items():
        for kernel in (kernel for name, kernel in counts.items() if f"kernelI{kind}E" in name):
            assert len(kernel.steps) == len(bounds), kind
            assert all(step <= bound for step, bound in zip(kernel.steps, bounds, strict=True)), (
                kind
            )


def test_a_tile_by_wgmma_keeps_to_its_instructions(tmp_path_factory):
    """64 pixels, 64 channels: 9 taps of 8 and 16 filters, and 3 of 64: 12, 24, 12 products."""
    if NVCC is None or (tool := cuobjdump()) is None:
        pytest.skip("there is no nvcc or no cuobjdump")
    source = "weight_grad/wgmma/cuda/weight_grad_wgmma_sm90a.cu"
    counts = compiled(tool, source, tmp_path_factory, "90a")
    most = {
        "Li3ELi1ELb0": 170, "Li3ELi2ELb0": 245, "Li3ELi1ELb1": 430, "Li3ELi2ELb1": 440,
        "Li3ELi8ELb0": 200, "Li3ELi8ELb1": 325,
    }  # fmt: skip
    for kind, bound in most.items():
        (kernel,) = (k for name, k in counts.items() if f"I13__nv_bfloat16{kind}E" in name)
        assert kernel.local == kernel.stack == 0, kind
        assert len(kernel.steps) == 1, kind
        assert kernel.steps[0] <= bound, kind


WAIT = """
\t\tFunction : _Z6kernel
        /*0000*/                   MOV R1, R2 ;
        /*0010*/                   SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [R3], R2 ;
        /*0020*/              @!P0 BRA 0x60 ;
        /*0030*/                   HGMMA.64x24x16.F32.BF16 R24, R60, gdesc[UR8].tnspB, R24 ;
        /*0040*/               @P1 BRA 0x10 ;
        /*0050*/                   EXIT ;
        /*0060*/                   SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [R3], R2 ;
        /*0070*/              @!P0 BRA 0x60 ;
        /*0080*/                   BRA 0x30 ;
        /*0090*/                   BRA 0x90 ;
"""


def test_the_rare_case_of_a_wait_is_no_loop_of_its_own(monkeypatch):
    outputs = {"-sass": WAIT, "-res-usage": USAGE}
    monkeypatch.setattr(instructions, "read", lambda tool, option, *_: outputs[option])
    (counts,) = instructions.count("cuobjdump", "90a", Path("file")).values()
    assert (counts.main_loop, counts.steps) == (0, (4,))
