"""bn_statistics on CUDA, in one launch with or without a sum (csrc/bn_relu/cuda/statistics.cu)."""

from __future__ import annotations

import torch
from torch import Tensor

from maskedconv.ops import native
from maskedconv.ops.bn_relu import cuda as bn_relu
from maskedconv.ops.bn_statistics.native import MEAN_OVER_BATCHES
from maskedconv.ops.bn_statistics.problem import StatisticsProblem
from maskedconv.ops.channels import image, image_of_rows, of_channels
from maskedconv.ops.plain import addresses

DEVICES: tuple[str, ...] = ("cuda",)
DETERMINISTIC = True


def cannot_run(problem: StatisticsProblem) -> str:
    """Empty when the kernel takes this input, else the reason why not."""
    return problem.why_refused(bn_relu.cannot_take)


def run(problem: StatisticsProblem) -> Tensor:
    """The statistics, on PyTorch's current stream."""
    input, weight, bias, eps, running, moments, out, _, *added = problem
    channels = input.size(1)
    if out is None:
        out = torch.empty((5, channels), dtype=torch.float32, device=input.device)
    table = image_of_rows(out, channels)
    known = None if moments is None else image_of_rows(moments, channels, rows=2)
    weight, bias = of_channels(weight, channels), of_channels(bias, channels)
    mean, var, batches, momentum = running or (None, None, None, 0.0)
    if momentum is None and batches is not None:
        batches.add_(1)
        momentum = MEAN_OVER_BATCHES
    state = addresses(weight, bias, mean, var, batches)
    rest = state, momentum or 0.0, eps, table
    with torch.cuda.device(input.device):
        stream = torch.cuda.current_stream().cuda_stream
        if known is not None:
            native.loaded().bn_statistics_of_moments_cuda(
                *bn_relu.shape_of(input)[1:], known, *rest, stream
            )
            return out
        workspace = bn_relu.workspace_of(input)
        native.loaded().bn_statistics_cuda(
            *bn_relu.shape_of(input), image(input), [image(one) for one in added],
            *rest, *workspace.arguments(), stream,
        )  # fmt: skip
    return out
