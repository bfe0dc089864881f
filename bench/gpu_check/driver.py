"""Launches kernels without torch, for instrumentation tools.

``python -m bench.gpu_check.driver --shape JSON`` allocates CUDA memory by the driver's library and
launches the weight gradient or the ``--kernel``. ``--host`` runs the CPU kernel instead.
``--check`` compares the result with float64.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np

from bench.gpu_check import driver_mask, driver_norm
from bench.gpu_check.driver_memory import (
    MULTIPROCESSORS,
    SHARED_BYTES,
    Array,
    CudaMemory,
    HostMemory,
    error_of,
    rounded,
)
from bench.gpu_check.plan import SANITIZED_KERNELS, UNCONFIRMED
from bench.gpu_check.shapes import Shape
from maskedconv import _C

# Kernels of other operators; all others compute the weight gradient.
OTHERS = {"bn_relu": driver_norm.launch, "masked_weight": driver_mask.launch}
MARGIN = 1e-2  # relative to the largest value, for bfloat16 and TF32 operands


def strides(array: Array) -> list[int]:
    """Strides in elements of ``[N, H, W, C]`` memory, viewed as ``[N, C, H, W]``."""
    image, row, pixel, channel = (step // array.itemsize for step in array.strides)
    return [image, channel, row, pixel]


def launch(shape: Shape, memory: Any, check: bool, kernel: str = "weight_grad") -> float:
    """The largest deviation from float64 as a fraction of the largest value; 0 if not checked."""
    if kernel in OTHERS:
        return OTHERS[kernel](shape, memory, check)
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
    operands = _operands(shape, memory, wide, stored_grad)
    call = _call_wgmma if kernel == UNCONFIRMED else _call_kernel
    call(memory, operands, (*pointers, at))
    memory.download(at, out)
    if not check:
        return 0.0
    x = x[..., : shape.channels]
    if shape.prologue:
        x = np.maximum(x * affine[0] + affine[1], 0)
    return error_of(out, exact(shape, x, grad))


def _operands(shape: Shape, memory: Any, wide: Array, grad: Array) -> tuple[Any, ...]:
    x_shape = [shape.batch, shape.channels, shape.size, shape.size]
    grad_shape = [shape.batch, shape.out_channels, shape.out_size, shape.out_size]
    filters = [shape.filters, shape.channels, shape.kernel, shape.kernel]
    geometry = (filters, [shape.stride] * 2, [shape.padding] * 2, [1, 1])
    return (
        shape.dtype, memory.upload(wide), x_shape, strides(wide),
        memory.upload(grad), grad_shape, strides(grad), *geometry,
    )  # fmt: skip


def _call_kernel(memory: Any, operands: tuple[Any, ...], pointers: tuple[int, ...]) -> None:
    """``pointers``: scale and shift, and the result."""
    if not memory.is_gpu:
        _C.weight_grad(*operands, *pointers, 1)
        return
    (dtype, _, x_shape), geometry = operands[:3], operands[7:]
    limits = memory.attribute(MULTIPROCESSORS), memory.attribute(SHARED_BYTES)
    splits = _C.weight_grad_cuda_splits(dtype, x_shape, *geometry, *limits)
    size = (splits, *geometry[0])
    workspace = memory.upload(np.full(size, np.nan, np.float32)) if splits > 1 else 0
    _C.weight_grad_cuda(*operands, *pointers, workspace, *limits, 0)


def _call_wgmma(memory: Any, operands: tuple[Any, ...], pointers: tuple[int, ...]) -> None:
    """Calls the kernel for sm_90a."""
    (dtype, _, x_shape), geometry = operands[:3], operands[7:]
    limits = memory.attribute(MULTIPROCESSORS), memory.attribute(SHARED_BYTES)
    floats, counters = _C.weight_grad_wgmma_workspace(dtype, x_shape, *geometry, *limits)
    workspace = memory.upload(np.full(floats, np.nan, np.float32)) if floats else 0
    counted = memory.upload(np.full(counters, 7, np.uint32)) if counters else 0
    _C.weight_grad_wgmma(*operands, *pointers, workspace, counted, *limits, 0)


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
    parser.add_argument("--kernel", default="weight_grad", choices=SANITIZED_KERNELS)
    parser.add_argument("--host", action="store_true")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    memory: Any = HostMemory() if arguments.host else CudaMemory()
    worst = 0.0
    for text in arguments.shape:
        shape = Shape(**json.loads(text))
        error = launch(shape, memory, arguments.check, arguments.kernel)
        worst = max(worst, error)
        print(f"{shape}: off by {error:.2e}")
    return 0 if worst <= MARGIN else 1


if __name__ == "__main__":
    sys.exit(main())
