"""masked_weight by PyTorch's own operators."""

from __future__ import annotations

import torch
from torch import Tensor

from maskedconv.ops.masked_weight.problem import (
    AnyMaskProblem,
    MaskProblem,
    ScoreGradProblem,
    Threshold,
    ThresholdProblem,
)


def cannot_run(problem: AnyMaskProblem) -> str:
    """Empty, because the reference takes every problem."""
    return ""


def find_threshold(problem: ThresholdProblem) -> Threshold:
    """The threshold, by selection in linear time; no value is read by the host."""
    score, num_kept, _ = problem
    if num_kept == 0:
        value = score.new_full((), torch.nan)
        return Threshold(value, torch.full_like(value, score.numel(), dtype=torch.int64))
    magnitude = score.detach().abs().flatten()
    value = _select(magnitude, score.numel() - num_kept)
    above, equal = _compare(magnitude, value)
    # The ties before `first` are dropped. They are fewer than all ties.
    ties = equal.cumsum(0)
    dropped = ties[-1] - (num_kept - above.sum())
    first = (ties <= dropped).sum()
    return Threshold(value, torch.where(dropped == 0, torch.zeros_like(first), first))


def masked_weight(problem: MaskProblem) -> Tensor:
    """The masked weight."""
    weight, score, threshold, binary, scale, dtype, _ = problem
    values = weight.detach().to(_arithmetic(weight, dtype))
    mask, undefined = kept_mask(score, threshold), score.isnan()
    values = values.masked_fill(undefined, torch.nan)
    mask = mask | undefined
    if binary:
        values = values.sign() * _mean_magnitude(values, mask, scale)
    elif scale != 1:
        values = values * scale
    return _like(weight, torch.where(mask, values, torch.zeros_like(values)), dtype)


def score_grad(problem: ScoreGradProblem) -> Tensor:
    """The gradient of the scores."""
    grad, weight, score, binary, scale, dtype, _ = problem
    factor = weight.detach().to(_arithmetic(weight, torch.promote_types(grad.dtype, dtype)))
    if binary:
        factor = factor.abs()
    factor = factor * _sign(score).to(factor.dtype)
    if scale != 1:
        factor = factor * scale
    return _like(weight, factor * grad, dtype)


def kept_mask(score: Tensor, threshold: Threshold) -> Tensor:
    """True where a score is kept, bool, in the shape of ``score``."""
    above, equal = _compare(score.detach().abs(), threshold.value)
    index = torch.arange(score.numel(), device=score.device).view(score.shape)
    return above | (equal & (index >= threshold.first))


def _sign(score: Tensor) -> Tensor:
    """PyTorch's sign, but NaN where the score is."""
    score = score.detach()
    return torch.where(score.isnan(), score, score.sign())


def _select(magnitude: Tensor, index: int) -> Tensor:
    """The magnitude at ``index`` of the ascending order, 0-d."""
    # PyTorch's selection on CUDA gives the same value each time, but not the same index, so it
    # raises an error there.
    if magnitude.is_cuda and torch.are_deterministic_algorithms_enabled():
        return magnitude.sort().values[index]
    return magnitude.kthvalue(index + 1).values


def _compare(magnitude: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Masks of ``magnitude`` above ``value``, and equal to it; NaN is the largest."""
    undefined, value_undefined = magnitude.isnan(), value.isnan()
    above = (magnitude > value) | (undefined & ~value_undefined)
    return above, (magnitude == value) | (undefined & value_undefined)


def _mean_magnitude(values: Tensor, mask: Tensor, scale: float) -> Tensor:
    """``alpha * scale``, 0-d, summed in float64; 0 if nothing is kept."""
    kept = torch.where(mask, values.abs(), torch.zeros_like(values))
    return (kept.sum(dtype=torch.float64) / mask.sum().clamp(min=1) * scale).to(values.dtype)


def _arithmetic(weight: Tensor, dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(torch.promote_types(weight.dtype, dtype), torch.float32)


def _like(weight: Tensor, values: Tensor, dtype: torch.dtype) -> Tensor:
    """``values`` as ``dtype``, in the memory format of ``weight``."""
    out = torch.empty_like(weight, dtype=dtype, requires_grad=False)
    if values.dtype == dtype and values.stride() == out.stride():
        return values
    return out.copy_(values)
