"""bn_statistics by the Triton kernels of ``triton_kernels.py``, in two launches.

For a GPU on which the CUDA kernel cannot run, or is wrong.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from maskedconv.ops import triton_runtime
from maskedconv.ops.bn_relu import triton as bn_relu
from maskedconv.ops.bn_statistics.problem import RunningStatistics, StatisticsProblem
from maskedconv.ops.bn_statistics.reference import move
from maskedconv.ops.channels import check_rows, of_channels
from maskedconv.ops.geometry import pixel_pitch

DEVICES: tuple[str, ...] = ("cuda",)
DETERMINISTIC = True
INSTEAD_OF = "cuda"  # to compile and time both would take the first run's time for nothing


def cannot_run(problem: StatisticsProblem) -> str:
    """The reason why the kernels cannot take this input, or an empty string."""
    return problem.why_refused(bn_relu.cannot_take)


def run(problem: StatisticsProblem) -> Tensor:
    """The statistics, on PyTorch's current stream."""
    input, weight, bias, _, running, moments, out, *_ = problem
    channels = input.size(1)
    weight, bias = of_channels(weight, channels), of_channels(bias, channels)
    if moments is not None:
        check_rows(moments, channels, rows=2)
    if out is not None:
        check_rows(out, channels)
    else:
        out = torch.empty((5, channels), dtype=torch.float32, device=input.device)
    # The mean over all batches moves by a fraction that is on the device.
    in_kernel = running is not None and running.momentum is not None
    with triton_runtime.on_device(input):
        if moments is None:
            parts, chunk = _spread(input, problem.summand, problem.total)
        else:
            parts, chunk = moments.unsqueeze(0), bn_relu.size_of(input)[0]
        moved = running if in_kernel else None
        _unite(problem._replace(weight=weight, bias=bias, running=moved), parts, chunk, out)
    if running is not None:
        if not in_kernel:
            move(running, out[0], out[1], bn_relu.size_of(input)[0])
        elif running.batches is not None:
            running.batches.add_(1)
    return out


def _spread(input: Tensor, *added: Tensor | None) -> tuple[Tensor, int]:
    """Means and variances of parts of the pixels, ``[parts, 2, C]``, and the pixels of a part.

    Args:
        added: summand and total of the problem.
    """
    from maskedconv.ops.bn_statistics.triton_kernels import spread_kernel

    pixels, channels = bn_relu.size_of(input)
    parts, chunk = bn_relu.split(pixels)
    found = torch.empty((parts, 2, channels), dtype=torch.float32, device=input.device)
    spread_kernel[(parts, math.ceil(channels / bn_relu.BLOCKS["BLOCK_CHANNELS"]))](
        input, *added, found, pixels, channels, pixel_pitch(input),
        *(0 if one is None else pixel_pitch(one) for one in added), chunk, **bn_relu.BLOCKS,
    )  # fmt: skip
    return found, chunk


def _unite(problem: StatisticsProblem, parts: Tensor, chunk: int, out: Tensor) -> None:
    from maskedconv.ops.bn_statistics.triton_kernels import union_kernel

    input, weight, bias, eps, running, *_ = problem
    mean, var, _, momentum = running or RunningStatistics(None, None, None, 0.0)
    pixels, channels = bn_relu.size_of(input)
    union_kernel[(math.ceil(channels / bn_relu.OVER_PARTS["BLOCK_CHANNELS"]),)](
        parts, weight, bias, mean, var, out, parts.size(0), chunk, pixels, channels,
        parts.stride(1), out.stride(0), eps, momentum, **bn_relu.OVER_PARTS,
    )  # fmt: skip
