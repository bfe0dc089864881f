"""bn_relu by the Triton kernels of ``triton_kernels.py``: one launch forward, three backward.

For a GPU on which the CUDA kernels cannot run, or are wrong.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from maskedconv.ops import triton_runtime
from maskedconv.ops.bn_relu.problem import (
    NO_MEMORY,
    BackwardMemory,
    Gradients,
    Needs,
    NormProblem,
    in_type_of,
    memory_for_grad,
)
from maskedconv.ops.channels import check_rows
from maskedconv.ops.geometry import dense_like, pixel_pitch

DEVICES: tuple[str, ...] = ("cuda",)
DETERMINISTIC = True
INSTEAD_OF = "cuda"  # to compile and time both would take the first run's time for nothing
BLOCKS = {"BLOCK_PIXELS": 32, "BLOCK_CHANNELS": 64}
PARTS = 128  # at most, into which sums over all pixels are split
OVER_PARTS = {"BLOCK_PARTS": PARTS, "BLOCK_CHANNELS": 16}
_TYPES = (torch.float32, torch.bfloat16, torch.float16)
_INT32 = 2**31 - 2**16


def cannot_run(problem: NormProblem) -> str:
    """The reason why the kernels cannot take this input, or an empty string."""
    return problem.cannot_use() or cannot_take(problem.input)


def cannot_take(input: Tensor) -> str:
    """The reason why the kernels cannot take ``input``, or an empty string."""
    if input.dtype not in _TYPES:
        return f"its kernel is for float32, bfloat16 and float16; the input is {input.dtype}"
    if input.numel() == 0:
        return "there is nothing to compute"
    if pixel_pitch(input) == 0:
        return "its kernel is for contiguous channels and a constant stride between pixels"
    pixels = input.numel() // input.size(1)
    if pixels * max(pixel_pitch(input), input.size(1)) >= _INT32:
        return f"an input of {pixels} pixels is too large for 32-bit indices"
    if math.ceil(input.size(1) / BLOCKS["BLOCK_CHANNELS"]) > triton_runtime.MOST_BLOCKS:
        return f"an input of {input.size(1)} channels has more blocks of them than a grid"
    return triton_runtime.cannot_launch(input.device)


def run(problem: NormProblem) -> Tensor:
    """The activation, in new dense memory and in the dtype of the input."""
    from maskedconv.ops.bn_relu.triton_kernels import activation_kernel

    input, norm, *_ = problem
    out = dense_like(input)
    pixels, channels = size_of(input)
    check_rows(norm.statistics, channels)
    with triton_runtime.on_device(input):
        activation_kernel[_grid(input)](
            input, norm.statistics, out, pixels, channels, pixel_pitch(input), channels,
            norm.statistics.stride(0), **BLOCKS,
        )  # fmt: skip
    return out


def run_backward(
    problem: NormProblem, grad: Tensor, needs: Needs, memory: BackwardMemory = NO_MEMORY
) -> Gradients:
    """The gradients; see :func:`maskedconv.ops.bn_relu.bn_relu_backward` for the arguments."""
    input, norm, *_ = problem
    check_rows(norm.statistics, input.size(1))
    if pixel_pitch(grad) == 0 or pixel_pitch(grad) * (grad.numel() // grad.size(1)) >= _INT32:
        grad = grad.contiguous(memory_format=torch.channels_last)
    grad_weight = memory_for_grad(norm.weight, needs[1], input)
    grad_bias = memory_for_grad(norm.bias, needs[2], input)
    problem = problem._replace(grad=grad)
    with triton_runtime.on_device(input):
        coefficients = None
        if norm.uses_batch_stats or grad_weight is not None or grad_bias is not None:
            coefficients = _coefficients(problem, grad_weight, grad_bias)
        used = coefficients if norm.uses_batch_stats else None
        grad_input = _grad_input(problem, used, memory) if needs[0] else None
    return grad_input, in_type_of(norm.weight, grad_weight), in_type_of(norm.bias, grad_bias)


def _coefficients(
    problem: NormProblem, grad_weight: Tensor | None, grad_bias: Tensor | None
) -> Tensor:
    """The coefficients of the last launch, ``[2, C]``; writes the gradients of γ and β."""
    from maskedconv.ops.bn_relu.triton_kernels import coefficients_kernel, sums_kernel

    input, (*_, statistics, _, _), _, grad = problem
    assert grad is not None
    pixels, channels = size_of(input)
    row, (parts, chunk) = statistics.stride(0), split(pixels)
    sums, coefficients = (
        torch.empty(size, dtype=torch.float32, device=input.device)
        for size in ((parts, 2, channels), (2, channels))
    )
    sums_kernel[(parts, math.ceil(channels / BLOCKS["BLOCK_CHANNELS"]))](
        input, grad, statistics, sums, pixels, channels, pixel_pitch(input), pixel_pitch(grad), row,
        chunk, **BLOCKS,
    )  # fmt: skip
    coefficients_kernel[(math.ceil(channels / OVER_PARTS["BLOCK_CHANNELS"]),)](
        sums, statistics, coefficients, grad_weight, grad_bias, parts, pixels, channels, row,
        **OVER_PARTS,
    )  # fmt: skip
    return coefficients


def _grad_input(
    problem: NormProblem, coefficients: Tensor | None, memory: BackwardMemory
) -> Tensor:
    from maskedconv.ops.bn_relu.triton_kernels import input_grad_kernel

    input, (*_, statistics, _, _), _, grad = problem
    assert grad is not None
    out = memory.added_to
    if out is None:
        overwritten = memory.in_place and grad.dtype == input.dtype
        out = grad if overwritten else dense_like(input)
    added = memory.summand
    input_grad_kernel[_grid(input)](
        input, grad, statistics, coefficients, added, out, *size_of(input), pixel_pitch(input),
        pixel_pitch(grad), 0 if added is None else pixel_pitch(added), pixel_pitch(out),
        statistics.stride(0), **BLOCKS,
    )  # fmt: skip
    return out


def size_of(input: Tensor) -> tuple[int, int]:
    """Pixels and channels."""
    return input.numel() // input.size(1), input.size(1)


def split(pixels: int) -> tuple[int, int]:
    """The number of parts for a sum over all pixels, and the pixels of a part; none is empty."""
    blocks = math.ceil(pixels / BLOCKS["BLOCK_PIXELS"])
    chunk = math.ceil(blocks / PARTS) * BLOCKS["BLOCK_PIXELS"]
    return math.ceil(pixels / chunk), chunk


def _grid(input: Tensor) -> tuple[int, int]:
    pixels, channels = size_of(input)
    return (
        math.ceil(pixels / BLOCKS["BLOCK_PIXELS"]),
        math.ceil(channels / BLOCKS["BLOCK_CHANNELS"]),
    )
