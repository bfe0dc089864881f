"""Builds CUDA kernels for the CPU (csrc/common/emulation) and calls them on tensors."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


def compiler():
    """The compiler in CXX or g++; None if there is none."""
    return shutil.which(os.environ.get("CXX", "g++"))


def build(name, folder, csrc=ROOT / "csrc"):
    """The emulation of the kernel in folder ``name``, from the sources in ``csrc``."""
    library = folder / f"{Path(name).name}.so"
    source = csrc / name / "emulation" / f"{Path(name).name}_emulated.cpp"
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
    result = subprocess.run(
        [compiler(), "-std=c++17", "-O1", *warnings, "-fPIC", "-shared", "-DMASKEDCONV_EMULATION",
         "-I", csrc, "-I", csrc / "common" / "emulation", source, "-o", library],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return ctypes.CDLL(str(library))


def build_module(folder):
    """A ``maskedconv._C`` with CUDA kernels that run on the CPU, and without CPU kernels."""
    import pybind11

    csrc, target = ROOT / "csrc", folder / "_C.so"
    includes = [pybind11.get_include(), sysconfig.get_path("include"), csrc]
    includes.append(csrc / "common" / "emulation")
    patterns = ("module.cpp", "common/*.cpp", "**/cuda/*.cpp", "**/cuda/*.cu")
    sources = sorted(path for pattern in patterns for path in csrc.glob(pattern))
    defines = ["WITH_CUDA", "EMULATION", 'COMPILER="test"', 'CUDA_ARCHS=""']
    result = subprocess.run(
        [compiler(), "-std=c++17", "-O0", "-fPIC", "-shared", "-fvisibility=hidden",
         *(f"-I{path}" for path in includes), *(f"-DMASKEDCONV_{text}" for text in defines),
         "-x", "c++", *sources, "-o", target],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    spec = importlib.util.spec_from_file_location("emulated._C", target)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def integers(values):
    values = list(values)
    return (ctypes.c_int64 * len(values))(*values)


def pointer(tensor):
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


class WeightGradEmulation:
    """The weight_grad kernel for a GPU with ``multiprocessors`` and ``shared_bytes`` per block."""

    PLAN: tuple[str, ...] = (
        "m_tiles", "channel_warps", "column_warps", "pixel_warps", "channel_blocks",
        "column_blocks", "splits", "tiles", "shared_bytes",
    )  # fmt: skip

    def __init__(self, library, multiprocessors=2, shared_bytes=160 * 1024):
        self.library = library
        self.library.emulated_error.restype = ctypes.c_char_p
        self.library.emulated_computed_again.restype = ctypes.c_int64
        self.limits = (multiprocessors, shared_bytes)

    def sizes(self, problem):
        filters, channels, *kernel = problem.shape
        geometry = problem.geometry
        return integers(
            (problem.input.size(0), channels, filters, *problem.input.shape[2:],
             *problem.grad_output.shape[2:], *kernel,
             *geometry.stride, *geometry.padding, *geometry.dilation)
        )  # fmt: skip

    def plan(self, problem):
        values = (ctypes.c_int64 * len(self.PLAN))()
        self.library.emulated_plan(
            TYPES[problem.input.dtype], self.sizes(problem), *self.limits, values
        )
        return dict(zip(self.PLAN, values, strict=True))

    def took_the_fast_path(self):
        """Whether the last successful run took the fast path."""
        return bool(self.library.emulated_fast_path())

    @staticmethod
    def empty_result(problem):
        """The output of the kernel ``[n, kH, kW, C]``, filled with NaN."""
        filters, channels, *kernel = problem.shape
        return torch.full((filters, *kernel, channels), torch.nan)

    def run(self, problem, seed=0, out=None):
        """The gradient, with NaN in unwritten elements; RuntimeError if the kernel failed."""
        input, grad = problem.input, problem.grad_output
        out = self.empty_result(problem) if out is None else out
        x_strides = [input.stride(dim) for dim in (0, 2, 3)]
        failed = self.library.emulated_weight_grad(
            seed, TYPES[input.dtype], pointer(input), integers(x_strides),
            pointer(grad), integers(grad.stride()), self.sizes(problem),
            pointer(problem.scale), pointer(problem.shift), *self.limits, pointer(out),
        )  # fmt: skip
        if failed:
            raise RuntimeError(self.library.emulated_error().decode())
        operands = (input, grad, problem.scale, problem.shift)
        finite = all(part is None or bool(part.isfinite().all()) for part in operands)
        # Computing them again would hide the fault.
        if finite and (again := self.library.emulated_computed_again()):
            raise RuntimeError(f"{again} sums of finite products were not finite")
        return out.permute(0, 3, 1, 2)


class WgmmaEmulation(WeightGradEmulation):
    """The kernel of ``csrc/weight_grad/wgmma``."""

    PLAN = (
        "rows", "images", "tiles", "filter_blocks", "groups", "filter_groups", "channel_blocks",
        "cluster", "clusters", "stages", "stage_bytes", "shared_bytes",
        "warpgroups", "swapped",
    )  # fmt: skip

    def __init__(self, library, multiprocessors=2, shared_bytes=227 * 1024):
        super().__init__(library, multiprocessors, shared_bytes)
        self.library.emulated_sizes_refusal.restype = ctypes.c_char_p

    def refusal(self, problem):
        """The reason why the kernel does not take a problem of these sizes, or an empty string."""
        return self.library.emulated_sizes_refusal(
            TYPES[problem.input.dtype], self.sizes(problem), *self.limits
        ).decode()
