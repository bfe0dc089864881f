"""The CUDA kernels compiled for every architecture that is built: no spills, within registers."""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import product
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NVCC = shutil.which("nvcc")
ARCHITECTURES = (80, 90, 100)
REGISTERS = 65536  # of a multiprocessor
# Threads of the largest block by the launch bounds: 8 warps if each owns 4 times 16 channels.
WEIGHT_GRAD_THREADS = {"2": 384, "4": 256}
KERNEL = re.compile(
    r"Function properties for (?P<name>\S+)\s+"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads\s+"
    r"ptxas info\s+: Used (?P<registers>\d+) registers(?P<rest>.*)"
)

pytestmark = pytest.mark.skipif(NVCC is None, reason="there is no nvcc to compile CUDA with")


def compile_kernels(operator, architecture, folder):
    """Reports of ptxas on the kernels of an operator, by their mangled names."""
    source = ROOT / "csrc" / operator / "cuda" / f"{operator}.cu"
    return compile_source(source, architecture, folder)


def compile_source(source, architecture, folder):
    """Reports of ptxas on the kernels of a source, by their mangled names."""
    result = subprocess.run(
        [NVCC, "-std=c++17", "-O3", "--expt-relaxed-constexpr", "-I", ROOT / "csrc", "-Xptxas=-v",
         f"-arch=sm_{architecture}", "-cubin", source, "-o", folder / "kernels.cubin"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "warning" not in result.stderr
    assert "serialized" not in result.stderr  # ptxas: products of warpgroups would wait
    kernels = {match["name"]: match.groupdict() for match in KERNEL.finditer(result.stderr)}
    assert len(kernels) == result.stderr.count("Compiling entry function")
    return kernels


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weight_grad_keeps_everything_in_registers(architecture, tmp_path):
    kernels = compile_kernels("weight_grad", architecture, tmp_path)
    names = " ".join(kernels)
    for element in ("f", "13__nv_bfloat16", "6__half"):
        for m_tiles, threads in WEIGHT_GRAD_THREADS.items():
            for prologue, fast in product("01", repeat=2):
                name = f"weight_grad_kernelI{element}Li{m_tiles}ELb{prologue}ELb{fast}E"
                assert names.count(name) == 1, name
                kernel = next(kernel for full, kernel in kernels.items() if name in full)
                assert int(kernel["registers"]) * threads <= REGISTERS, name
    assert len(kernels) == 27  # and for each type the kernel that finishes the sums
    check_memory(kernels)


def check_memory(kernels):
    """No spills, no local arrays; shared memory only what the launch asks for."""
    for name, kernel in kernels.items():
        assert (kernel["stores"], kernel["loads"], kernel["stack"]) == ("0", "0", "0"), name
        assert "smem" not in kernel["rest"], name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_pack_filters_keeps_everything_in_registers(architecture, tmp_path):
    kernels = compile_kernels("pack_filters", architecture, tmp_path)
    assert len(kernels) == 6  # of each type with one and with four elements a thread
    check_memory(kernels)


OTHERS = sorted(
    source.relative_to(ROOT).as_posix()
    for source in ROOT.glob("csrc/*/cuda/*.cu")
    if source.stem not in ("weight_grad", "pack_filters")
)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", OTHERS)
def test_every_other_source_keeps_everything_in_registers(source, architecture, tmp_path):
    check_memory(compile_source(ROOT / source, architecture, tmp_path))


WGMMA = ROOT / "csrc" / "weight_grad" / "wgmma" / "cuda" / "weight_grad_wgmma_sm90a.cu"
# Taps of a row, eights of filters of a block, and the most registers: a quarter of a multiprocessor
# has 16384 in steps of 8 a thread, for a warp of each warpgroup and the one that copies.
WGMMA_REGISTERS = {
    (1, 1): 128, (1, 2): 128, (1, 4): 128, (1, 8): 128, (3, 1): 128, (3, 2): 128, (3, 4): 255,
    (3, 8): 128, (5, 1): 168,
}  # fmt: skip


def test_weight_grad_by_wgmma_keeps_everything_in_registers(tmp_path):
    kernels = compile_source(WGMMA, "90a", tmp_path)
    for (side, filter_blocks), most in WGMMA_REGISTERS.items():
        for element, prologue in product(("13__nv_bfloat16", "6__half"), "01"):
            name = f"weight_grad_wgmma_kernelI{element}Li{side}ELi{filter_blocks}ELb{prologue}E"
            (kernel,) = (kernel for full, kernel in kernels.items() if name in full)
            assert int(kernel["registers"]) <= most, name
    assert len(kernels) == 4 * len(WGMMA_REGISTERS)
    check_memory(kernels)


def test_weight_grad_by_wgmma_is_empty_elsewhere(tmp_path):
    """A build for other architectures alone has no instruction of sm_90a."""
    kernels = compile_source(WGMMA, "100", tmp_path)
    assert all(int(kernel["registers"]) <= 8 for kernel in kernels.values())
