"""The counts of bench.instructions, and that the kernels keep to theirs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench import instructions

NVCC = shutil.which("nvcc")
# The committed counts are of nvcc 13.0; another version may order and unroll a little differently.
ALLOWANCE = 1.25
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


def compiled(source, tmp_path_factory, architecture="90"):
    """The counts of a source's kernels by mangled name; skips the test without the tools."""
    if NVCC is None or (tool := cuobjdump()) is None:
        pytest.skip("there is no nvcc or no cuobjdump")
    folder = tmp_path_factory.mktemp("cubin")
    cubin = instructions.compile_kernels(instructions.CSRC / source, architecture, folder)
    return instructions.count(tool, architecture, cubin)


@pytest.fixture(scope="module")
def weight_grad(tmp_path_factory):
    return compiled("weight_grad/cuda/weight_grad.cu", tmp_path_factory)


@pytest.fixture(scope="module")
def pack_filters(tmp_path_factory):
    return compiled("pack_filters/cuda/pack_filters.cu", tmp_path_factory)


def committed():
    """The counts for sm_90a in ``bench/results`` by readable name."""
    path = instructions.FOLDER / "sm_90a-instructions.json"
    return json.loads(path.read_text())["all kernels"]


def assert_steps(counts, expected, name):
    """A kernel has the loops of its committed counts, each of at most ``ALLOWANCE`` times them.

    ``name`` begins the names of the kernels that have loops; the committed ones must all be there.
    """
    named = dict(zip(instructions.readable(list(counts)), counts.values(), strict=True))
    kernels = {one for one in expected if one.startswith(name)}
    assert kernels
    assert kernels == {one for one in named if one.startswith(name)}
    for kernel in sorted(kernels):
        steps, most = named[kernel].steps, expected[kernel]["steps"]
        assert len(steps) == len(most) > 0, kernel
        for step, bound in zip(steps, most, strict=True):
            assert step <= ALLOWANCE * bound, (kernel, steps, most)


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
    for name, kernel in compiled(source, tmp_path_factory).items():
        assert kernel.local == kernel.stack == 0, name
        assert kernel.registers <= 64, name  # four blocks of 256 threads on a multiprocessor


def test_no_kernel_divides_but_where_it_computes_anew(weight_grad, pack_filters):
    assert weight_grad
    assert pack_filters
    for name, kernel in (weight_grad | pack_filters).items():
        assert kernel.local == 0, name
        assert kernel.divisions == 0 or "finish_kernel" in name, name


@pytest.mark.skipif(shutil.which("c++filt") is None, reason="there is no c++filt")
def test_a_step_keeps_to_its_instructions(weight_grad):
    assert_steps(weight_grad, committed(), "weight_grad_kernel<")


@pytest.mark.skipif(shutil.which("c++filt") is None, reason="there is no c++filt")
def test_a_tile_by_wgmma_keeps_to_its_instructions(tmp_path_factory):
    source = "weight_grad/wgmma/cuda/weight_grad_wgmma_sm90a.cu"
    counts = compiled(source, tmp_path_factory, "90a")
    assert all(kernel.local == kernel.stack == 0 for kernel in counts.values())
    assert_steps(counts, committed(), "weight_grad_wgmma_kernel<")


def counted(steps):
    return instructions.Counts(32, 0, 0, 0, 0, 100, 50, steps)


@pytest.mark.parametrize(
    "counts",
    [
        {},
        {"other<1>": counted((40,))},
        {"kernel<1>": counted((40,)), "kernel<2>": counted((40,))},
        {"kernel<1>": counted(())},
        {"kernel<1>": counted((40, 40))},
        {"kernel<1>": counted((51,))},
    ],
    ids=["nothing", "another name", "one more", "no loop", "another loop", "longer"],
)
def test_kernels_that_differ_from_the_committed_ones_are_found(counts):
    expected = {"kernel<1>": {"steps": [40]}, "finish": {"steps": []}}
    assert_steps({"kernel<1>": counted((50,))}, expected, "kernel<")
    with pytest.raises(AssertionError):
        assert_steps(counts, expected, "kernel<")


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
