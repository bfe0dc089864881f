"""bn_relu on the CPU, by the compiled passes of csrc/bn_relu/bn_relu.cpp.

Backward takes two passes over input and gradient, and no memory of the input's size: ReLU's mask is
computed in both.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maskedconv.ops import native
from maskedconv.ops.bn_relu.problem import (
    NO_MEMORY,
    BackwardMemory,
    Gradients,
    Needs,
    NormProblem,
    in_type_of,
    memory_for_grad,
)
from maskedconv.ops.channels import addresses_of_rows, image
from maskedconv.ops.geometry import dense_like, memory_format_of, pixel_pitch
from maskedconv.ops.plain import address, addresses

DEVICES: tuple[str, ...] = ("cpu",)
MOST = 2**31 - 1  # kMost of csrc/common/checks.h
_COMPILED = native.module()


def cannot_run(problem: NormProblem) -> str:
    """The reason why the passes cannot take this input, or an empty string."""
    input = problem.input
    if _COMPILED is None:
        return native.why_missing()
    if input.device.type != "cpu":
        return f"its kernel is for the CPU; the input is on {input.device}"
    if input.dtype not in native.TYPES:
        return f"its kernel is for float32, bfloat16 and float16; the input is {input.dtype}"
    if input.size(1) > MOST:
        return f"its kernel is for at most {MOST} channels"
    if pixel_pitch(input) == 0:
        return "its kernel is for contiguous channels and a constant stride between pixels"
    return problem.cannot_use()


def run(problem: NormProblem) -> Tensor:
    """The activation, in new dense memory."""
    compiled = _COMPILED or native.loaded()
    input = problem.input
    out = dense_like(input)
    *_, scale, shift = addresses_of_rows(problem.norm.statistics, input.size(1))
    compiled.bn_relu(*_pixels(input), scale, shift, address(out), torch.get_num_threads())
    return out


def run_backward(
    problem: NormProblem, grad: Tensor, needs: Needs, memory: BackwardMemory = NO_MEMORY
) -> Gradients:
    """The gradients; see :func:`maskedconv.ops.bn_relu.bn_relu_backward` for the arguments."""
    compiled = _COMPILED or native.loaded()
    input, norm, *_ = problem
    if grad.dtype != input.dtype or pixel_pitch(grad) != grad.size(1):
        grad = grad.to(input.dtype).contiguous(memory_format=memory_format_of(input))
    grad_input = None
    if needs[0]:
        grad_input = memory.added_to
        if grad_input is None:
            grad_input = grad if memory.in_place else dense_like(input)
    channels = input.size(1)
    grad_weight = memory_for_grad(norm.weight, needs[1], input)
    grad_bias = memory_for_grad(norm.bias, needs[2], input)
    mean, _, inverse_deviation, scale, shift = addresses_of_rows(norm.statistics, channels)
    summand, written = memory.summand, image(grad_input)
    compiled.bn_relu_backward(
        *_pixels(input), scale, shift, address(grad), mean, inverse_deviation,
        norm.uses_batch_stats, *written, *(written if summand is grad_input else image(summand)),
        *addresses(grad_weight, grad_bias), torch.get_num_threads(),
    )  # fmt: skip
    return grad_input, in_type_of(norm.weight, grad_weight), in_type_of(norm.bias, grad_bias)


def _pixels(input: Tensor) -> tuple[str, int, int, int, int]:
    """Type, address of the first pixel, stride between pixels, number of pixels, channels."""
    channels = input.size(1)
    count = input.numel() // max(1, channels)
    return native.TYPES[input.dtype], address(input), pixel_pitch(input), count, channels
