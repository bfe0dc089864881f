"""weight_grad on CUDA, by the compiled kernel of csrc/weight_grad/cuda/weight_grad.cu.

Not yet run on a GPU: ``ops/measured.py`` checks its result there before it is chosen.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maskedconv.ops import native
from maskedconv.ops.geometry import ConvGeometry
from maskedconv.ops.plain import address
from maskedconv.ops.weight_grad.problem import WeightGradProblem, outside_the_kernels

DEVICES: tuple[str, ...] = ("cuda",)
DETERMINISTIC = True  # sums are added in a fixed order
_TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


class _Limits(NamedTuple):
    """The limits of a GPU that determine the kernel's tiles."""

    multiprocessors: int
    shared_bytes: int  # limit of one block


def cannot_run(problem: WeightGradProblem) -> str:
    """The reason why the kernel cannot take this problem, or an empty string."""
    input, grad_output = problem.input, problem.grad_output
    module = native.module()
    if module is None:
        return native.REASON
    if not hasattr(module, "weight_grad_cuda"):
        return "maskedconv._C was built without CUDA"
    if input.device.type != "cuda" or grad_output.device != input.device:
        return (
            f"its kernel is for cuda; the input is on {input.device}, "
            f"the gradient on {grad_output.device}"
        )
    if input.dtype not in _TYPES or grad_output.dtype != input.dtype:
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
    cudnn: Any = torch.backends.cudnn
    if problem.input.dtype == torch.float32 and cudnn.conv.fp32_precision != "tf32":
        return "its kernel computes float32 in TF32, which torch.backends.cudnn.conv forbids"
    if _splits_of(problem) == 0:
        return "a kernel of this size or dilation does not fit into shared memory"
    return ""


@functools.cache
def _limits(device: torch.device) -> _Limits:
    properties: Any = torch.cuda.get_device_properties(device)
    return _Limits(properties.multi_processor_count, properties.shared_memory_per_block_optin)


@functools.lru_cache(maxsize=1024)
def _splits(
    dtype: torch.dtype,
    input_shape: torch.Size,
    shape: torch.Size,
    geometry: ConvGeometry,
    limits: _Limits,
) -> int:
    """The number of partial gradients that the kernel writes; 0 if it does not fit."""
    module = native.module()
    if module is None:
        raise RuntimeError(native.REASON)
    splits = module.weight_grad_cuda_splits(
        _TYPES[dtype], input_shape, shape,
        geometry.stride, geometry.padding, geometry.dilation, *limits,
    )  # fmt: skip
    return int(splits)


def _splits_of(problem: WeightGradProblem) -> int:
    input = problem.input
    return _splits(input.dtype, input.shape, problem.shape, problem.geometry, _limits(input.device))


def run(problem: WeightGradProblem) -> Tensor:
    """The gradient in float32, channels_last, on PyTorch's current stream."""
    module = native.module()
    if module is None:
        raise RuntimeError(native.REASON)
    input, grad_output, geometry = problem.input, problem.grad_output, problem.geometry
    filters, channels, *kernel = problem.shape
    splits = _splits_of(problem)
    with torch.cuda.device(input.device):
        out = torch.empty((filters, *kernel, channels), dtype=torch.float32, device=input.device)
        workspace = out.new_empty((splits, *out.shape)) if splits > 1 else None
        prologue = [
            None if tensor is None else tensor.to(torch.float32).contiguous()
            for tensor in (problem.scale, problem.shift)
        ]
        pointers = [
            0 if tensor is None else address(tensor) for tensor in (*prologue, out, workspace)
        ]
        module.weight_grad_cuda(
            _TYPES[input.dtype],
            address(input), input.shape, input.stride(),
            address(grad_output), grad_output.shape, grad_output.stride(),
            problem.shape, geometry.stride, geometry.padding, geometry.dilation,
            *pointers, *_limits(input.device), torch.cuda.current_stream().cuda_stream,
        )  # fmt: skip
    return out.permute(0, 3, 1, 2)
