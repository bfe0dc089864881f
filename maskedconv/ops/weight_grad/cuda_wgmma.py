"""weight_grad on sm_90a by TMA and wgmma, by the compiled kernel of csrc/weight_grad/wgmma.

No GPU has confirmed it, so it runs only where it is named: by the argument ``backend`` or by
``MASKEDCONV_BACKEND``. ``bench.gpu_check`` checks and times it beside the others.
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

DEVICES: tuple[str, ...] = ()  # none before a GPU has confirmed it
DETERMINISTIC = True  # sums are added in a fixed order
_TYPES = {torch.bfloat16: "bfloat16", torch.float16: "float16"}


class _Limits(NamedTuple):
    """The limits of a GPU that determine the kernel's tiles."""

    multiprocessors: int
    shared_bytes: int  # limit of one block


def why_not_built() -> str:
    """The reason why the kernel is not in the compiled module, or an empty string."""
    module = native.module()
    if module is None:
        return native.REASON
    if not hasattr(module, "weight_grad_wgmma"):
        return "maskedconv._C was built without CUDA"
    archs = module.build_info()["cuda_archs"]
    if not {"90", "90a"} & set(archs.split()):
        return f"maskedconv._C was built for sm {archs}, without 90"
    return ""


def cannot_run(problem: WeightGradProblem) -> str:
    """The reason why the kernel cannot take this problem, or an empty string."""
    input, grad_output = problem.input, problem.grad_output
    if reason := why_not_built():
        return reason
    if input.device.type != "cuda" or grad_output.device != input.device:
        return (
            f"its kernel is for cuda; the input is on {input.device}, "
            f"the gradient on {grad_output.device}"
        )
    if input.dtype not in _TYPES or grad_output.dtype != input.dtype:
        return (
            "its kernel is for bfloat16 and float16; the input is "
            f"{input.dtype}, the gradient {grad_output.dtype}"
        )
    if torch.cuda.get_device_capability(input.device) != (9, 0):
        return f"its kernel is for compute capability 9.0, which {input.device} does not have"
    if reason := outside_the_kernels(problem):
        return reason
    return _refusal(problem)


def _operands(problem: WeightGradProblem) -> tuple[Any, ...]:
    input, grad_output, geometry = problem.input, problem.grad_output, problem.geometry
    return (
        _TYPES[input.dtype],
        address(input), input.shape, input.stride(),
        address(grad_output), grad_output.shape, grad_output.stride(),
        problem.shape, geometry.stride, geometry.padding, geometry.dilation,
    )  # fmt: skip


def _refusal(problem: WeightGradProblem) -> str:
    """The reason why its sizes, strides or addresses are not for the kernel, or empty."""
    limits = _limits(problem.input.device)
    return str(_module().weight_grad_wgmma_refusal(*_operands(problem), *limits))


def _module() -> Any:
    module = native.module()
    if module is None:
        raise RuntimeError(native.REASON)
    return module


@functools.cache
def _limits(device: torch.device) -> _Limits:
    properties: Any = torch.cuda.get_device_properties(device)
    return _Limits(properties.multi_processor_count, properties.shared_memory_per_block_optin)


@functools.lru_cache(maxsize=1024)
def _workspace(
    dtype: torch.dtype,
    input_shape: torch.Size,
    shape: torch.Size,
    geometry: ConvGeometry,
    limits: _Limits,
) -> tuple[int, int]:
    """Numbers of floats and of counters that a launch needs."""
    floats, counters = _module().weight_grad_wgmma_workspace(
        _TYPES[dtype], input_shape, shape,
        geometry.stride, geometry.padding, geometry.dilation, *limits,
    )  # fmt: skip
    return int(floats), int(counters)


@functools.cache
def _counters(device: torch.device, stream: int) -> Tensor:
    """Zeros, as every launch on the stream finds and leaves them."""
    return torch.zeros(_limits(device).multiprocessors, dtype=torch.int32, device=device)


def run(problem: WeightGradProblem) -> Tensor:
    """The gradient in float32, channels_last, on PyTorch's current stream."""
    input = problem.input
    limits = _limits(input.device)
    filters, channels, *kernel = problem.shape
    floats, counters = _workspace(input.dtype, input.shape, problem.shape, problem.geometry, limits)
    with torch.cuda.device(input.device):
        stream = torch.cuda.current_stream().cuda_stream
        out = torch.empty((filters, *kernel, channels), dtype=torch.float32, device=input.device)
        prologue = [
            None if tensor is None else tensor.to(torch.float32).contiguous()
            for tensor in (problem.scale, problem.shift)
        ]
        needed = (
            (out.new_empty(floats), _counters(input.device, stream)) if counters else (None, None)
        )
        pointers = [
            0 if tensor is None else address(tensor) for tensor in (*prologue, out, *needed)
        ]
        _module().weight_grad_wgmma(*_operands(problem), *pointers, *limits, stream)
    return out.permute(0, 3, 1, 2)
