"""bn_statistics on the CPU, by csrc/bn_relu/statistics.cpp: one pass over the input.

The sum of two tensors is computed and written in the same pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maskedconv.ops import native
from maskedconv.ops.bn_relu.native import MOST
from maskedconv.ops.bn_statistics.problem import StatisticsProblem
from maskedconv.ops.channels import check_rows, image, of_channels
from maskedconv.ops.geometry import pixel_pitch
from maskedconv.ops.plain import address, addresses

DEVICES: tuple[str, ...] = ("cpu",)
MEAN_OVER_BATCHES = -1.0  # as momentum of the compiled kernels
_COMPILED = native.module()


def cannot_run(problem: StatisticsProblem) -> str:
    """Empty if the kernel takes this problem, else the reason why not."""
    if _COMPILED is None:
        return native.why_missing()
    if reason := problem.cannot_use():
        return reason
    channels = problem.input.size(1)
    if max(channels, problem.input.numel() // max(1, channels)) > MOST:
        return f"its kernel is for at most {MOST} pixels and {MOST} channels"
    for tensor in problem.tensors():
        if tensor.device.type != "cpu":
            return f"its kernel is for the CPU; a tensor is on {tensor.device}"
        if tensor.dtype not in native.TYPES or tensor.dtype != problem.input.dtype:
            return f"its kernel is for float32, bfloat16 and float16; a tensor is {tensor.dtype}"
        if pixel_pitch(tensor) == 0:
            return "its kernel is for contiguous channels and a constant stride between pixels"
    return ""


@torch.no_grad()
def run(problem: StatisticsProblem) -> Tensor:
    """The statistics, ``[5, C]``."""
    compiled = _COMPILED or native.loaded()
    input, weight, bias, eps, running, moments, out, _, summand, total = problem
    channels = input.size(1)
    pixels = input.numel() // max(1, channels)
    if out is None:
        out = torch.empty((5, channels), dtype=torch.float32, device="cpu")
    else:
        check_rows(out, channels)
    weight, bias = of_channels(weight, channels), of_channels(bias, channels)
    mean, var, batches, momentum = running or (None, None, None, 0.0)
    state = addresses(weight, bias, mean, var, batches)
    if momentum is None:
        momentum = MEAN_OVER_BATCHES if batches is not None else 0.0
    rest = state, momentum, eps, (address(out), out.stride(0))
    if moments is None:
        compiled.bn_statistics(
            native.TYPES[input.dtype], image(input), pixels, channels, image(summand), image(total),
            *rest, torch.get_num_threads(),
        )  # fmt: skip
    else:
        out[:2] = moments
        compiled.bn_statistics_of_moments(pixels, channels, *rest)
    return out
