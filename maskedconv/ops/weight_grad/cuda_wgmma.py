"""weight_grad on sm_90a by TMA and wgmma, by the compiled kernel of csrc/weight_grad/wgmma.

No GPU has confirmed it, so it runs only where it is named: by the argument ``backend`` or by
``MASKEDCONV_BACKEND``. ``bench.gpu_check`` checks and times it beside the others.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from maskedconv.ops import native
from maskedconv.ops.geometry import ConvGeometry
from maskedconv.ops.plain import addresses
from maskedconv.ops.weight_grad import gpu
from maskedconv.ops.weight_grad.problem import WeightGradProblem, outside_the_kernels

DEVICES: tuple[str, ...] = ()  # none before a GPU has confirmed it
DETERMINISTIC = True  # sums are added in a fixed order
_TYPES = (torch.bfloat16, torch.float16)


def why_not_built() -> str:
    """The reason why the kernel is not in the compiled module, or an empty string."""
    if reason := native.why_no_cuda("weight_grad_wgmma"):
        return reason
    archs = native.loaded().build_info()["cuda_archs"]
    if not {"90", "90a"} & set(archs.split()):
        return f"maskedconv._C was built for sm {archs}, without 90"
    return ""


def cannot_run(problem: WeightGradProblem) -> str:
    """The reason why the kernel cannot take this problem, or an empty string."""
    input, grad_output = problem.input, problem.grad_output
    if reason := why_not_built():
        return reason
    if reason := gpu.why_not_on_cuda(problem):
        return reason
    if input.dtype not in _TYPES or grad_output.dtype != input.dtype:
        return (
            "its kernel is for bfloat16 and float16; the input is "
            f"{input.dtype}, the gradient {grad_output.dtype}"
        )
    if torch.cuda.get_device_capability(input.device) != (9, 0):
        return f"its kernel is for compute capability 9.0, which {input.device} does not have"
    if reason := native.why_no_code_for(input.device):
        return reason
    if reason := outside_the_kernels(problem):
        return reason
    limits = gpu.limits_of(input.device)
    return str(native.loaded().weight_grad_wgmma_refusal(*gpu.operands(problem), *limits))


@functools.lru_cache(maxsize=1024)
def _workspace(
    dtype: torch.dtype,
    input_shape: torch.Size,
    shape: torch.Size,
    geometry: ConvGeometry,
    limits: gpu.Limits,
) -> tuple[int, int]:
    """Numbers of floats and of counters that a launch needs."""
    floats, counters = native.loaded().weight_grad_wgmma_workspace(
        native.TYPES[dtype], input_shape, shape,
        geometry.stride, geometry.padding, geometry.dilation, *limits,
    )  # fmt: skip
    return int(floats), int(counters)


def run(problem: WeightGradProblem) -> Tensor:
    """The gradient in float32, channels_last, on PyTorch's current stream."""
    input, limits = problem.input, gpu.limits_of(problem.input.device)
    floats, counters = _workspace(input.dtype, input.shape, problem.shape, problem.geometry, limits)
    with torch.cuda.device(input.device):
        out, prologue = gpu.new_result(problem), gpu.prologue(problem)
        # Memory of this call alone, as in ops/bn_relu/cuda.py; the launch sets the counters to 0.
        workspace = out.new_empty(floats) if floats else None
        counted = out.new_empty(counters, dtype=torch.int32) if counters else None
        native.loaded().weight_grad_wgmma(
            *gpu.operands(problem), *addresses(*prologue, out, workspace, counted),
            *limits, torch.cuda.current_stream().cuda_stream,
        )  # fmt: skip
    return out.permute(0, 3, 1, 2)
