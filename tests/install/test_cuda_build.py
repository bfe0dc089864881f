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
# Of the largest block that the launch bounds allow: 8 warps where one owns 4 times 16 channels.
WEIGHT_GRAD_THREADS = {"2": 384, "4": 256}
KERNEL = re.compile(
    r"Function properties for (?P<name>\S+)\s+"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads\s+"
    r"ptxas info\s+: Used (?P<registers>\d+) registers(?P<rest>.*)"
)

pytestmark = pytest.mark.skipif(NVCC is None, reason="there is no nvcc to compile CUDA with")


def compile_kernels(operator, architecture, folder):
    """What ptxas reports of each kernel of an operator, by its mangled name."""
    source = ROOT / "csrc" / operator / "cuda" / f"{operator}.cu"
    result = subprocess.run(
        [NVCC, "-std=c++17", "-O3", "--expt-relaxed-constexpr", "-I", ROOT / "csrc", "-Xptxas=-v",
         f"-arch=sm_{architecture}", "-cubin", source, "-o", folder / "kernels.cubin"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "warning" not in result.stderr
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
