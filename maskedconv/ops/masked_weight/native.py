"""masked_weight on the CPU, by the compiled kernels of csrc/masked_weight/."""

from __future__ import annotations

import torch
from torch import Tensor

from maskedconv.ops import native
from maskedconv.ops.masked_weight import reference
from maskedconv.ops.masked_weight.layout import in_layout_of
from maskedconv.ops.masked_weight.problem import (
    AnyMaskProblem,
    MaskProblem,
    ScoreGradProblem,
    Threshold,
    ThresholdProblem,
)
from maskedconv.ops.plain import address

DEVICES: tuple[str, ...] = ("cpu",)
_COMPILED = native.module()
_MOST_ELEMENTS = 2**31 - 1


def cannot_run(problem: AnyMaskProblem) -> str:
    """The reason why the kernels cannot take this problem, or an empty string."""
    if _COMPILED is None:
        return native.why_missing()
    for tensor in problem.tensors():
        if tensor.device.type != "cpu":
            return f"its kernel is for the CPU; a tensor is on {tensor.device}"
        if tensor.numel() > _MOST_ELEMENTS:
            return f"its kernel is for at most {_MOST_ELEMENTS} elements"
    return why_not_typed(problem)


def why_not_typed(problem: AnyMaskProblem) -> str:
    """The reason why the compiled kernels do not have these dtypes, or an empty string."""
    scored = problem.score if isinstance(problem, ThresholdProblem) else problem.weight
    if scored.dtype != torch.float32:
        return f"its kernel is for float32 weights and scores; these are {scored.dtype}"
    if problem.score.dtype != torch.float32:
        return f"its kernel is for float32 scores; these are {problem.score.dtype}"
    if isinstance(problem, MaskProblem) and problem.dtype not in native.TYPES:
        return f"no compiled conversion to {problem.dtype}"
    if isinstance(problem, ScoreGradProblem):
        if problem.grad.dtype not in native.TYPES:
            return f"no compiled conversion from {problem.grad.dtype}"
        if problem.dtype != torch.float32:
            return f"its kernel is for float32 gradients of scores, not {problem.dtype}"
    return ""


def find_threshold(problem: ThresholdProblem) -> Threshold:
    """The threshold."""
    score, num_kept, _ = problem
    if num_kept == 0:
        return reference.find_threshold(problem)
    compiled = _COMPILED or native.loaded()
    dense = score if score.is_contiguous() else in_layout_of(torch.empty_like(score), score)
    value = torch.empty((), dtype=torch.float32, device="cpu")
    first = torch.empty((), dtype=torch.int64, device="cpu")
    pointers = address(value), address(first)
    threads = torch.get_num_threads()
    compiled.find_threshold(address(dense), score.numel(), num_kept, *pointers, threads)
    if not score.is_contiguous() and int(first) != 0:
        # The index is the one in memory, but must be the row-major one.
        dense = score.contiguous()
        compiled.find_threshold(address(dense), score.numel(), num_kept, *pointers, threads)
    return Threshold(value, first)


def masked_weight(problem: MaskProblem) -> Tensor:
    """The masked weight."""
    compiled = _COMPILED or native.loaded()
    weight, score, (value, first), binary, scale, dtype, _ = problem
    out = torch.empty_like(weight, dtype=dtype, requires_grad=False)
    if not out.is_contiguous() and 0 < int(first) < score.numel():
        # Only some scores of one magnitude are kept. Their order is that of the indices.
        rows = problem._replace(weight=weight.contiguous(), score=score.contiguous())
        return out.copy_(masked_weight(rows))
    weight, score = in_layout_of(out, weight), in_layout_of(out, score)
    compiled.masked_weight(
        native.TYPES[dtype], address(weight), address(score), weight.numel(), address(value),
        address(first), binary, scale, address(out), torch.get_num_threads(),
    )  # fmt: skip
    return out


def score_grad(problem: ScoreGradProblem) -> Tensor:
    """The gradient of the scores."""
    compiled = _COMPILED or native.loaded()
    _, weight, _, binary, scale, dtype, _ = problem
    out = torch.empty_like(weight, dtype=dtype, requires_grad=False)
    grad, weight, score = (in_layout_of(out, tensor) for tensor in problem.tensors())
    compiled.score_grad(
        native.TYPES[grad.dtype], address(grad), address(weight), address(score), weight.numel(),
        binary, scale, address(out), torch.get_num_threads(),
    )  # fmt: skip
    return out
