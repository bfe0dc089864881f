"""weight_grad on the CPU, by the compiled kernel of csrc/weight_grad/weight_grad.cpp."""

from __future__ import annotations

import torch
from torch import Tensor

from maskedconv.ops import native
from maskedconv.ops.channels import of_channels
from maskedconv.ops.plain import address
from maskedconv.ops.weight_grad.problem import WeightGradProblem, outside_the_kernels

DEVICES: tuple[str, ...] = ("cpu",)
_COMPILED = native.module()


def cannot_run(problem: WeightGradProblem) -> str:
    """The reason why the kernel cannot take this problem, or an empty string."""
    input = problem.input
    if _COMPILED is None:
        return native.why_missing()
    if input.device.type != "cpu":
        return f"its kernel is for the CPU; the input is on {input.device}"
    if input.dtype not in native.TYPES or problem.grad_output.dtype != input.dtype:
        return (
            "its kernel is for float32, bfloat16 and float16; the input is "
            f"{input.dtype}, the gradient {problem.grad_output.dtype}"
        )
    return outside_the_kernels(problem)


def run(problem: WeightGradProblem) -> Tensor:
    """The gradient in float32, channels_last."""
    compiled = _COMPILED or native.loaded()
    input, grad_output, shape, _, geometry, scale, shift, _ = problem
    # PyTorch takes numbers faster than a shape.
    out = torch.empty(*shape, dtype=torch.float32, memory_format=torch.channels_last, device="cpu")
    scale_at = shift_at = 0
    if scale is not None and shift is not None:
        scale, shift = of_channels(scale, shape[1]), of_channels(shift, shape[1])
        scale_at, shift_at = address(scale), address(shift)
    compiled.weight_grad(
        native.TYPES[input.dtype],
        address(input), input.shape, input.stride(),
        address(grad_output), grad_output.shape, grad_output.stride(),
        shape, geometry.stride, geometry.padding, geometry.dilation,
        scale_at, shift_at, address(out), torch.get_num_threads(),
    )  # fmt: skip
    return out
