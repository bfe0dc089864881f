"""Launches the kernels of BatchNorm and ReLU without torch: see :mod:`bench.gpu_check.driver`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bench.gpu_check.driver_memory import (
    MULTIPROCESSORS,
    Array,
    error_of,
    rounded,
    widened,
)
from bench.gpu_check.shapes import Shape
from maskedconv import _C

EPS = 1e-3
NONE = (0, 0)
ROW = 4  # bytes of a channel's number


class Results(NamedTuple):
    """Outputs of all kernels: ``[5, C]``, two ``[pixels, C]``, and ``[2, C]`` for γ and β."""

    statistics: Array
    activation: Array
    grad_x: Array
    grad_affine: Array


class Addresses(NamedTuple):
    """Addresses of the tensors."""

    x: int
    grad: int
    affine: int
    statistics: int
    activation: int
    grad_x: int
    grad_affine: int


def launch(shape: Shape, memory: Any, check: bool) -> float:
    """The largest deviation from float64 as a fraction of an output's largest value; 0 if not
    checked. The pixels and channels are those of the shape's input.
    """
    random = np.random.default_rng(0)
    pixels, channels = shape.batch * shape.size**2, shape.channels
    pitch = shape.pitch or channels
    wide, x = rounded(random.standard_normal((pixels, pitch), dtype=np.float32) + 1, shape.dtype)
    stored, grad = rounded(
        random.standard_normal((pixels, channels), dtype=np.float32), shape.dtype
    )
    affine = random.random((2, channels), dtype=np.float32) + 0.5
    found = Results(
        np.full((5, channels), np.nan, np.float32), np.zeros_like(stored), np.zeros_like(stored),
        np.full((2, channels), np.nan, np.float32),
    )  # fmt: skip
    at = Addresses(*(memory.upload(array) for array in (wide, stored, affine, *found)))
    run = _on_gpu if memory.is_gpu else _on_host
    run((shape.dtype, pixels, channels), pitch, memory, at)
    for pointer, array in zip(at[3:], found, strict=True):
        memory.download(pointer, array)
    if not check:
        return 0.0
    expected = exact(x[:, :channels], grad, affine.astype(np.float64))
    pairs = zip(map(widened, found), expected, strict=True)
    return max(error_of(value, right) for value, right in pairs)


def _on_gpu(size: tuple[str, int, int], pitch: int, memory: Any, at: Addresses) -> None:
    _, pixels, channels = size
    processors = memory.attribute(MULTIPROCESSORS)
    num_sums, num_counters = _C.bn_relu_cuda_workspace(pixels, channels, processors)
    sums = memory.upload(np.full(num_sums, np.nan, np.float32))
    counters = memory.upload(np.full(num_counters, 7, np.uint32))
    coefficients = memory.upload(np.full((2, channels), np.nan, np.float32))
    x, rows = (at.x, pitch), (at.statistics, channels)
    state = [at.affine, at.affine + ROW * channels, 0, 0, 0]
    _C.bn_statistics_cuda(
        *size, x, [NONE, NONE], state, 0.0, EPS, rows, sums, counters, processors, 0
    )
    _C.bn_relu_cuda(*size, x, rows, (at.activation, channels), processors, 0)
    _C.bn_relu_backward_cuda(
        *size, x, (at.grad, channels), rows, True, (at.grad_x, channels), NONE, at.grad_affine,
        at.grad_affine + ROW * channels, coefficients, sums, counters, processors, 0,
    )  # fmt: skip


def _on_host(size: tuple[str, int, int], pitch: int, memory: Any, at: Addresses) -> None:
    dtype, pixels, channels = size
    mean, _, inverse, scale, shift = (at.statistics + row * ROW * channels for row in range(5))
    state = [at.affine, at.affine + ROW * channels, 0, 0, 0]
    _C.bn_statistics(
        dtype, (at.x, pitch), pixels, channels, NONE, NONE, state, 0.0, EPS,
        (at.statistics, channels), 1,
    )  # fmt: skip
    x = (dtype, at.x, pitch, pixels, channels, scale, shift)
    _C.bn_relu(*x, at.activation, 1)
    _C.bn_relu_backward(
        *x, at.grad, mean, inverse, True, at.grad_x, channels, *NONE, at.grad_affine,
        at.grad_affine + ROW * channels, 1,
    )  # fmt: skip


def exact(x: Array, grad: Array, affine: Array) -> Results:
    """The outputs in float64, by the formulae of BatchNorm."""
    mean, var = x.mean(0), x.var(0)
    inverse = 1 / np.sqrt(var + EPS)
    scale = affine[0] * inverse
    shift = affine[1] - mean * scale
    normalised, result = (x - mean) * inverse, x * scale + shift
    grad = np.where(result > 0, grad, 0.0)
    sums = (grad * normalised).sum(0), grad.sum(0)
    grad_x = scale * (grad - (sums[1] + normalised * sums[0]) / len(x))
    statistics = np.stack([mean, var, inverse, scale, shift])
    return Results(statistics, np.maximum(result, 0), grad_x, np.stack(sums))
