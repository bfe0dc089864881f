"""Launches the kernel of the weight gradient without torch, for instrumentation tools.

``python -m bench.gpu_check.driver --shape JSON`` allocates CUDA memory by the driver's library.
``--host`` runs the CPU kernel instead. ``--check`` compares the result with float64.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.gpu_check.shapes import Shape
from maskedconv import _C

Array = NDArray[Any]
MULTIPROCESSORS, SHARED_BYTES = 16, 97  # CUdevice_attribute
MARGIN = 1e-2  # relative to the largest value, for bfloat16 and TF32 operands


class HostMemory:
    """Memory of the host: arrays are used directly."""

    def upload(self, array: Array) -> int:
        self._held = [*getattr(self, "_held", []), array]
        return int(array.ctypes.data)

    def download(self, pointer: int, array: Array) -> None:
        ctypes.memmove(array.ctypes.data, pointer, array.nbytes)


class CudaMemory:
    """Memory of the first GPU, in its primary context, which the CUDA runtime shares."""

    def __init__(self) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")
        context = ctypes.c_void_p()
        self._device = ctypes.c_int()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(self._device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self._call("cuCtxSetCurrent", context)

    def attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), number, self._device)
        return value.value

    def upload(self, array: Array) -> int:
        pointer = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(array.nbytes))
        self._call(
            "cuMemcpyHtoD_v2", pointer, ctypes.c_void_p(array.ctypes.data),
            ctypes.c_size_t(array.nbytes),
        )  # fmt: skip
        return pointer.value

    def download(self, pointer: int, array: Array) -> None:
        self._call("cuCtxSynchronize")
        self._call(
            "cuMemcpyDtoH_v2", ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(pointer),
            ctypes.c_size_t(array.nbytes),
        )  # fmt: skip

    def _call(self, name: str, *arguments: Any) -> None:
        if code := getattr(self._driver, name)(*arguments):
            raise RuntimeError(f"{name} returned {code}")


def rounded(values: Array, dtype: str) -> tuple[Array, Array]:
    """The stored values, and the same in float64; bfloat16 truncates float32."""
    if dtype == "float32":
        return values, values.astype(np.float64)
    stored = (values.view(np.uint32) >> 16).astype(np.uint16)
    return stored, (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def strides(array: Array) -> list[int]:
    """Strides in elements of ``[N, H, W, C]`` memory, viewed as ``[N, C, H, W]``."""
    image, row, pixel, channel = (step // array.itemsize for step in array.strides)
    return [image, channel, row, pixel]


def launch(shape: Shape, memory: Any, check: bool) -> float:
    """The largest deviation from float64 as a fraction of the largest value; 0 if not checked."""
    random = np.random.default_rng(0)

    def images(channels: int, size: int) -> tuple[Array, Array]:
        values = random.standard_normal((shape.batch, size, size, channels), dtype=np.float32)
        return rounded(values, shape.dtype)

    wide, x = images(shape.pitch or shape.channels, shape.size)
    stored_grad, grad = images(shape.out_channels, shape.out_size)
    affine = random.random((2, shape.channels), dtype=np.float32)
    out = np.full((shape.filters, shape.kernel, shape.kernel, shape.channels), np.nan, np.float32)
    pointers = [memory.upload(part) for part in affine] if shape.prologue else [0, 0]
    at = memory.upload(out)
    _call_kernel(shape, memory, (wide, stored_grad), pointers, at)
    memory.download(at, out)
    if not check:
        return 0.0
    x = x[..., : shape.channels]
    if shape.prologue:
        x = np.maximum(x * affine[0] + affine[1], 0)
    expected = exact(shape, x, grad)
    # Written so that a NaN is a deviation.
    error = float(np.nan_to_num(np.abs(out - expected), nan=np.inf).max())
    return error / float(np.abs(expected).max())


def _call_kernel(
    shape: Shape, memory: Any, arrays: tuple[Array, Array], affine: list[int], out: int
) -> None:
    wide, grad = arrays
    x_shape = [shape.batch, shape.channels, shape.size, shape.size]
    grad_shape = [shape.batch, shape.out_channels, shape.out_size, shape.out_size]
    filters = [shape.filters, shape.channels, shape.kernel, shape.kernel]
    geometry = (filters, [shape.stride] * 2, [shape.padding] * 2, [1, 1])
    operands = (
        shape.dtype, memory.upload(wide), x_shape, strides(wide),
        memory.upload(grad), grad_shape, strides(grad), *geometry,
    )  # fmt: skip
    if isinstance(memory, HostMemory):
        _C.weight_grad(*operands, *affine, out, 1)
        return
    limits = memory.attribute(MULTIPROCESSORS), memory.attribute(SHARED_BYTES)
    splits = _C.weight_grad_cuda_splits(shape.dtype, x_shape, *geometry, *limits)
    size = (splits, shape.filters, shape.kernel, shape.kernel, shape.channels)
    workspace = memory.upload(np.full(size, np.nan, np.float32)) if splits > 1 else 0
    _C.weight_grad_cuda(*operands, *affine, out, workspace, *limits, 0)


def exact(shape: Shape, x: Array, grad: Array) -> Array:
    """The gradient ``[filters, kH, kW, C]`` in float64, from one product per tap."""
    pad, step, size = shape.padding, shape.stride, shape.out_size
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    out = np.empty((shape.filters, shape.kernel, shape.kernel, shape.channels))
    for row in range(shape.kernel):
        for column in range(shape.kernel):
            seen = x[:, row::step, column::step][:, :size, :size]
            out[:, row, column] = np.einsum("nhwo,nhwc->oc", grad[..., : shape.filters], seen)
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", action="append", required=True, help="a Shape as JSON")
    parser.add_argument("--host", action="store_true")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    memory: Any = HostMemory() if arguments.host else CudaMemory()
    worst = 0.0
    for text in arguments.shape:
        shape = Shape(**json.loads(text))
        worst = max(worst, error := launch(shape, memory, arguments.check))
        print(f"{shape}: off by {error:.2e}")
    return 0 if worst <= MARGIN else 1


if __name__ == "__main__":
    sys.exit(main())
