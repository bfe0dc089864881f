"""bn_relu on CUDA, by the kernels of csrc/bn_relu/cuda/bn_relu.cu.

Forward is one launch, backward two.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from maskedconv.ops import devices, native
from maskedconv.ops.bn_relu.problem import (
    NO_MEMORY,
    BackwardMemory,
    Gradients,
    Needs,
    NormProblem,
    in_type_of,
    memory_for_grad,
)
from maskedconv.ops.channels import image, image_of_rows
from maskedconv.ops.geometry import dense_like, memory_format_of, pixel_pitch
from maskedconv.ops.plain import address, addresses

DEVICES: tuple[str, ...] = ("cuda",)
DETERMINISTIC = True
_MOST_PIXELS = 2**31 - 2**24  # kMostNormPixels of csrc/bn_relu/cuda/bn_relu_cuda.h
_MOST_CHANNELS = 2**16


class Workspace(NamedTuple):
    """Memory in which blocks leave sums for the last one, and the GPU's size.

    Each call has memory of its own, and sets its counters to 0. So nothing is shared by launches
    on two streams, or by two CUDA graphs, and no graph depends on the replay of another.

    Attributes:
        memory: sums in float32, and then counters of the same size.
    """

    memory: Tensor
    sums: int
    multiprocessors: int

    def arguments(self) -> tuple[int, int, int]:
        """As the module takes them."""
        first = address(self.memory)
        return first, first + self.sums * self.memory.element_size(), self.multiprocessors


def cannot_run(problem: NormProblem) -> str:
    """Empty when the kernels take this input, else the reason why not."""
    return problem.cannot_use() or cannot_take(problem.input)


def cannot_take(input: Tensor) -> str:
    """Empty when the kernels take ``input``, else the reason why not."""
    if reason := native.why_no_cuda("bn_relu_cuda"):
        return reason
    if input.device.type != "cuda":
        return f"its kernel is for cuda; the input is on {input.device}"
    if reason := native.why_no_code_for(input.device):
        return reason
    if input.dtype not in native.TYPES:
        return f"its kernel is for float32, bfloat16 and float16; the input is {input.dtype}"
    if input.numel() == 0:
        return "there is nothing to compute"
    if pixel_pitch(input) == 0:
        return "its kernel wants channels side by side and pixels at equal distances"
    if input.numel() // input.size(1) > _MOST_PIXELS or input.size(1) > _MOST_CHANNELS:
        return f"its kernel is for at most {_MOST_PIXELS} pixels and {_MOST_CHANNELS} channels"
    return ""


def run(problem: NormProblem) -> Tensor:
    """The activation, in new dense memory and in the type of the input."""
    input, norm, *_ = problem
    statistics = image_of_rows(norm.statistics, input.size(1))
    with torch.cuda.device(input.device):
        out = dense_like(input)
        native.loaded().bn_relu_cuda(
            *shape_of(input), image(input), statistics, image(out),
            devices.multiprocessors(input.device), torch.cuda.current_stream().cuda_stream,
        )  # fmt: skip
    return out


def run_backward(
    problem: NormProblem, grad: Tensor, needs: Needs, memory: BackwardMemory = NO_MEMORY
) -> Gradients:
    """The gradients; for the arguments see :func:`maskedconv.ops.bn_relu.bn_relu_backward`."""
    input, norm, *_ = problem
    channels = input.size(1)
    statistics = image_of_rows(norm.statistics, channels)
    if grad.dtype != input.dtype or pixel_pitch(grad) == 0:
        grad = grad.to(input.dtype).contiguous(memory_format=memory_format_of(input))
    with torch.cuda.device(input.device):
        grad_input = _memory_for_input(input, grad, memory) if needs[0] else None
        grad_weight = memory_for_grad(norm.weight, needs[1], input)
        grad_bias = memory_for_grad(norm.bias, needs[2], input)
        coefficients = torch.empty((2, channels), dtype=torch.float32, device=input.device)
        workspace = workspace_of(input)
        native.loaded().bn_relu_backward_cuda(
            *shape_of(input), image(input), image(grad), statistics,
            norm.uses_batch_stats,
            image(grad_input), image(memory.summand),
            *addresses(grad_weight, grad_bias, coefficients), *workspace.arguments(),
            torch.cuda.current_stream().cuda_stream,
        )  # fmt: skip
    return grad_input, in_type_of(norm.weight, grad_weight), in_type_of(norm.bias, grad_bias)


def _memory_for_input(input: Tensor, grad: Tensor, memory: BackwardMemory) -> Tensor:
    """The tensor that the gradient of ``input`` is written or added to."""
    if memory.added_to is not None:
        return memory.added_to
    dense = pixel_pitch(grad) == input.size(1)
    return grad if memory.in_place and dense else dense_like(input)


def shape_of(input: Tensor) -> tuple[str, int, int]:
    """Type, pixels and channels."""
    return native.TYPES[input.dtype], input.numel() // input.size(1), input.size(1)


def workspace_of(input: Tensor) -> Workspace:
    """For sums over all pixels of ``input``."""
    size = devices.multiprocessors(input.device)
    _, pixels, channels = shape_of(input)
    sums, counters = native.loaded().bn_relu_cuda_workspace(pixels, channels, size)
    memory = torch.empty(sums + counters, dtype=torch.float32, device=input.device)
    return Workspace(memory, sums, size)
