"""masked_weight on CUDA, by the compiled kernels of csrc/masked_weight/cuda/."""

from __future__ import annotations

import torch
from torch import Tensor

from maskedconv.ops import native
from maskedconv.ops.masked_weight import reference
from maskedconv.ops.masked_weight.layout import (
    dense_copy,
    in_layout_of,
    result_like,
    why_no_layout,
)
from maskedconv.ops.masked_weight.native import why_not_typed
from maskedconv.ops.masked_weight.problem import (
    AnyMaskProblem,
    MaskProblem,
    ScoreGradProblem,
    Threshold,
    ThresholdProblem,
)
from maskedconv.ops.plain import address, addresses

DEVICES: tuple[str, ...] = ("cuda",)
DETERMINISTIC = True  # counts are integers, and sums are added in a fixed order
_MOST_ELEMENTS = 2**31 - 2**16


def cannot_run(problem: AnyMaskProblem) -> str:
    """The reason why the kernels cannot take this problem, or an empty string."""
    if reason := native.why_no_cuda("masked_weight_cuda"):
        return reason
    first, *others = problem.tensors()
    for tensor in (first, *others):
        if tensor.device.type != "cuda" or tensor.device != first.device:
            return f"its kernel is for cuda; tensors are on {first.device} and {tensor.device}"
    if reason := native.why_no_code_for(first.device):
        return reason
    if reason := why_not_typed(problem):
        return reason
    if first.numel() == 0:
        return "there is nothing to compute"
    if first.numel() > _MOST_ELEMENTS:
        return f"its kernel is for at most {_MOST_ELEMENTS} elements"
    return "" if isinstance(problem, ThresholdProblem) else why_no_layout(problem.weight)


def find_threshold(problem: ThresholdProblem) -> Threshold:
    """The threshold, on PyTorch's current stream."""
    score, num_kept, _ = problem
    if num_kept == 0:
        return reference.find_threshold(problem)
    compiled = native.loaded()
    with torch.cuda.device(score.device):
        score, layout = dense_copy(score)
        counted, words = compiled.find_threshold_cuda_space(score.numel())
        counts = torch.zeros(counted, dtype=torch.int32, device=score.device)
        states = torch.empty(words, dtype=torch.int32, device=score.device)
        value = torch.empty((), dtype=torch.float32, device=score.device)
        first = torch.empty((), dtype=torch.int64, device=score.device)
        compiled.find_threshold_cuda(
            address(score), *layout, num_kept, address(value), address(first),
            address(counts), address(states), torch.cuda.current_stream().cuda_stream,
        )  # fmt: skip
    return Threshold(value, first)


def masked_weight(problem: MaskProblem) -> Tensor:
    """The masked weight, on PyTorch's current stream."""
    weight, score, (value, first), binary, scale, dtype, _ = problem
    compiled = native.loaded()
    with torch.cuda.device(weight.device):
        out, layout = result_like(weight, dtype)
        weight, score = in_layout_of(out, weight), in_layout_of(out, score)
        parts = None
        if binary:
            shape = compiled.MASKED_WEIGHT_CUDA_PARTS, 2
            parts = torch.empty(shape, dtype=torch.float64, device=out.device)
        compiled.masked_weight_cuda(
            native.TYPES[dtype], *addresses(weight, score), *layout, *addresses(value, first),
            scale, *addresses(out, parts), torch.cuda.current_stream().cuda_stream,
        )  # fmt: skip
    return out


def score_grad(problem: ScoreGradProblem) -> Tensor:
    """The gradient of the scores, on PyTorch's current stream."""
    _, weight, _, binary, scale, dtype, _ = problem
    with torch.cuda.device(weight.device):
        out, _ = result_like(weight, dtype)
        grad, weight, score = (in_layout_of(out, tensor) for tensor in problem.tensors())
        native.loaded().score_grad_cuda(
            native.TYPES[grad.dtype], address(grad), address(weight), address(score), out.numel(),
            binary, scale, address(out), torch.cuda.current_stream().cuda_stream,
        )  # fmt: skip
    return out
