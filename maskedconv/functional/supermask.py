"""The weight of a supermask, with the straight-through gradient of its scores."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from maskedconv.functional.autograd import once_differentiable_lazily
from maskedconv.ops.masked_weight import Threshold, find_threshold, masked_weight, score_grad


class MaskPlan(NamedTuple):
    """How a weight is masked.

    Attributes:
        num_kept: number of weights that are kept, by the threshold of these scores alone.
        binary: False for ``weight * mask`` (edge-popup), True for ``sign(weight) * alpha * mask``
            with the mean magnitude ``alpha`` of the kept weights (biprop).
        threshold: replaces that of ``num_kept``: of the scores of several layers together.
    """

    num_kept: int
    binary: bool = False
    threshold: Threshold | None = None

    def threshold_of(self, scores: Tensor) -> Threshold:
        """The threshold for ``scores``; not differentiable."""
        return self.threshold or find_threshold(scores.detach(), self.num_kept)


class _MaskedWeight(torch.autograd.Function):
    """Keeps the frozen weight and the scores for backward, both of which exist anyway."""

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, weight: Tensor, plan: MaskPlan, dtype: torch.dtype
    ) -> Tensor:
        ctx.save_for_backward(scores, weight)
        threshold = plan.threshold_of(scores)
        return masked_weight(weight, scores, threshold, binary=plan.binary, dtype=dtype)

    @staticmethod
    @once_differentiable_lazily
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scores, weight = ctx.saved_tensors
        # For biprop, too: the mask's gradient is grad * sign(weight), multiplied by |weight|.
        return score_grad(grad, weight, scores), None, None, None


def supermask_weight(
    scores: Tensor, weight: Tensor, plan: MaskPlan, dtype: torch.dtype | None = None
) -> Tensor:
    """The masked weight; differentiable towards ``scores`` alone.

    The mask keeps the weights with the largest ``|score|``. Its gradient is passed straight through
    to the magnitude of every score, kept or not: the score's gradient is ``grad * weight *
    sign(score)``. This holds for biprop too: its mask is multiplied by ``sign(weight)``, and its
    gradient by ``|weight|``. Not differentiable twice.

    Source: Ramanujan et al. 2019 (arXiv 1911.13299), section 3, and the public code of both papers,
    which takes the magnitude of the scores; Diffenderfer & Kailkhura 2021 (arXiv 2103.09377).

    Args:
        scores, weight: of equal shape, such as ``[O, I / groups, kH, kW]``.
        dtype: of the result; None for that of ``weight``.
    """
    dtype = dtype or weight.dtype
    if scores.requires_grad and torch.is_grad_enabled():
        return _MaskedWeight.apply(scores, weight, plan, dtype)
    threshold = plan.threshold_of(scores)
    return masked_weight(weight, scores.detach(), threshold, binary=plan.binary, dtype=dtype)
