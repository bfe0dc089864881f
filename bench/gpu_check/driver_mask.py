"""Launches the kernels of supermasks without torch: see :mod:`bench.gpu_check.driver`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bench.gpu_check.driver_memory import Array, error_of, rounded, widened
from bench.gpu_check.shapes import Shape
from maskedconv import _C

KEPT, SCALE = 0.3, 1.5
BINARY = (False, True)


class Mask(NamedTuple):
    """A weight ``[O, kH, kW, I]``, its scores, and their indices in row-major order.

    Attributes:
        layout: sizes and steps as the kernels take them, from slowest to fastest.
        dtype: of the masked weight and its gradient.
    """

    weight: Array
    score: Array
    index: Array
    layout: tuple[list[int], list[int]]
    dtype: str

    @property
    def num_kept(self) -> int:
        """The number of scores that are kept."""
        return int(KEPT * self.score.size)


class Results(NamedTuple):
    """Outputs of all kernels; the weights and gradients without and with ``binary``."""

    value: Array
    first: Array
    weights: tuple[Array, Array]
    grads: tuple[Array, Array]


def launch(shape: Shape, memory: Any, check: bool) -> float:
    """The largest deviation from float64 as a fraction of an output's largest value; 0 if not
    checked. The weight is that of the shape, in channels_last, and many of its scores are equal.
    """
    random = np.random.default_rng(0)
    filters, channels, kernel = shape.out_channels, shape.channels, shape.kernel
    size = (filters, kernel, kernel, channels)
    weight, score, grad = (random.standard_normal(size, dtype=np.float32) for _ in range(3))
    taps = kernel**2
    layout = [*size], [channels * taps, kernel, 1, taps]
    index = np.arange(weight.size).reshape(filters, channels, kernel, kernel).transpose(0, 2, 3, 1)
    if not memory.is_gpu:  # its kernels are for row-major memory
        layout, index = ([], []), np.arange(weight.size)
    mask = Mask(weight, np.round(score * 16) / 16, index.ravel(), layout, shape.dtype)
    stored, grad = rounded(grad, shape.dtype)
    found = Results(
        np.full(1, np.nan, np.float32), np.full(1, -1, np.int64),
        (np.zeros_like(stored), np.zeros_like(stored)),
        (np.full_like(weight, np.nan), np.full_like(weight, np.nan)),
    )  # fmt: skip
    arrays = (found.value, found.first, *found.weights, *found.grads)
    at = [memory.upload(array) for array in arrays]
    run = _on_gpu if memory.is_gpu else _on_host
    run(mask, memory, memory.upload(stored), at)
    for pointer, array in zip(at, arrays, strict=True):
        memory.download(pointer, array)
    if not check:
        return 0.0
    pairs = zip(map(widened, (*found.weights, *found.grads)), exact(mask, grad), strict=True)
    return max(error_of(value, right) for value, right in pairs)


def _on_gpu(mask: Mask, memory: Any, grad: int, at: list[int]) -> None:
    weight, score, elements = memory.upload(mask.weight), memory.upload(mask.score), mask.score.size
    counted, words = _C.find_threshold_cuda_space(elements)
    counts = memory.upload(np.zeros(counted, np.uint32))
    states = memory.upload(np.full(words, 7, np.uint32))
    _C.find_threshold_cuda(score, *mask.layout, mask.num_kept, *at[:2], counts, states, 0)
    for binary, out, out_grad in zip(BINARY, at[2:4], at[4:], strict=True):
        size = (_C.MASKED_WEIGHT_CUDA_PARTS, 2)
        parts = memory.upload(np.full(size, np.nan)) if binary else 0
        _C.masked_weight_cuda(
            mask.dtype, weight, score, *mask.layout, *at[:2], SCALE, out, parts, 0
        )
        _C.score_grad_cuda(mask.dtype, grad, weight, score, elements, binary, SCALE, out_grad, 0)


def _on_host(mask: Mask, memory: Any, grad: int, at: list[int]) -> None:
    weight, score, elements = memory.upload(mask.weight), memory.upload(mask.score), mask.score.size
    _C.find_threshold(score, elements, mask.num_kept, *at[:2], 1)
    for binary, out, out_grad in zip(BINARY, at[2:4], at[4:], strict=True):
        _C.masked_weight(mask.dtype, weight, score, elements, *at[:2], binary, SCALE, out, 1)
        _C.score_grad(mask.dtype, grad, weight, score, elements, binary, SCALE, out_grad, 1)


def exact(mask: Mask, grad: Array) -> tuple[Array, ...]:
    """Masked weights and gradients in float64; the mask is that of a stable sort."""
    weight, sign = mask.weight.astype(np.float64), np.sign(mask.score)
    order = np.lexsort((mask.index, np.abs(mask.score).ravel()))
    kept = np.zeros(weight.size)
    kept[order[weight.size - mask.num_kept :]] = 1
    kept = kept.reshape(weight.shape)
    alpha = np.abs(weight * kept).sum() / mask.num_kept
    grad = grad.reshape(weight.shape) * sign * SCALE
    weights = weight * kept * SCALE, np.sign(weight) * alpha * kept * SCALE
    return *weights, grad * weight, grad * np.abs(weight)
