"""weight_grad on CUDA, by the compiled kernel of csrc/weight_grad/cuda/weight_grad.cu."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from maskedconv.ops import native
from maskedconv.ops.geometry import ConvGeometry
from maskedconv.ops.plain import addresses
from maskedconv.ops.weight_grad import gpu
from maskedconv.ops.weight_grad.problem import WeightGradProblem, outside_the_kernels

DEVICES: tuple[str, ...] = ("cuda",)
DETERMINISTIC = True  # sums are added in a fixed order


def cannot_run(problem: WeightGradProblem) -> str:
    """The reason why the kernel cannot take this problem, or an empty string."""
    input, grad_output = problem.input, problem.grad_output
    if reason := native.why_no_cuda("weight_grad_cuda"):
        return reason
    if reason := gpu.why_not_on_cuda(problem):
        return reason
    if input.dtype not in native.TYPES or grad_output.dtype != input.dtype:
        return (
            "its kernel is for float32, bfloat16 and float16; the input is "
            f"{input.dtype}, the gradient {grad_output.dtype}"
        )
    if reason := outside_the_kernels(problem):
        return reason
    return _hardware_cannot_run(problem)


def _hardware_cannot_run(problem: WeightGradProblem) -> str:
    device = problem.input.device
    if torch.cuda.get_device_capability(device) < (8, 0):
        return f"its kernel is for compute capability 8.0 and later, which {device} does not have"
    if reason := native.why_no_code_for(device):
        return reason
    cudnn: Any = torch.backends.cudnn
    if problem.input.dtype == torch.float32 and cudnn.conv.fp32_precision != "tf32":
        return "its kernel computes float32 in TF32, which torch.backends.cudnn.conv forbids"
    if _splits_of(problem) == 0:
        return "a kernel of this size or dilation does not fit into shared memory, or into a grid"
    return ""


@functools.lru_cache(maxsize=1024)
def _splits(
    dtype: torch.dtype,
    input_shape: torch.Size,
    shape: torch.Size,
    geometry: ConvGeometry,
    limits: gpu.Limits,
) -> int:
    """The number of partial gradients that the kernel writes; 0 if it does not fit."""
    splits = native.loaded().weight_grad_cuda_splits(
        native.TYPES[dtype], input_shape, shape,
        geometry.stride, geometry.padding, geometry.dilation, *limits,
    )  # fmt: skip
    return int(splits)


def _splits_of(problem: WeightGradProblem) -> int:
    input, limits = problem.input, gpu.limits_of(problem.input.device)
    return _splits(input.dtype, input.shape, problem.shape, problem.geometry, limits)


def run(problem: WeightGradProblem) -> Tensor:
    """The gradient in float32, channels_last, on PyTorch's current stream."""
    device = problem.input.device
    splits = _splits_of(problem)
    with torch.cuda.device(device):
        out = gpu.new_result(problem)
        workspace = out.new_empty((splits, *out.shape)) if splits > 1 else None
        prologue = gpu.prologue(problem)
        native.loaded().weight_grad_cuda(
            *gpu.operands(problem), *addresses(*prologue, out, workspace),
            *gpu.limits_of(device), torch.cuda.current_stream().cuda_stream,
        )  # fmt: skip
    return out.permute(0, 3, 1, 2)
