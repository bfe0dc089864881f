"""The weight of a supermask, with the straight-through gradient of its scores."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from maskedconv.functional.once_differentiable import once_differentiable
from maskedconv.ops.masked_weight import Threshold, find_threshold, masked_weight, score_grad
from maskedconv.tracing import needs_operators


class MaskPlan(NamedTuple):
    """How a weight is masked.

    Attributes:
        num_kept: number of weights that are kept, by the threshold of these scores alone.
        binary: False for ``weight * mask`` (edge-popup), True for ``sign(weight) * alpha * mask``
            with the mean magnitude ``alpha`` of the kept weights (biprop).
        threshold: of the scores of several layers jointly; replaces that of ``num_kept``.
        inner: numbers of weights that further masks of the same scores keep, each within the one
            before. The weight is multiplied by the number of masks that keep it (Okoshi et al.
            2022). Not with ``binary`` or ``threshold``.
    """

    num_kept: int
    binary: bool = False
    threshold: Threshold | None = None
    inner: tuple[int, ...] = ()

    def threshold_of(self, scores: Tensor) -> Threshold:
        """The threshold for ``scores``; not differentiable."""
        return self.threshold or find_threshold(scores.detach(), self.num_kept)

    def apply(self, scores: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """The masked weight; not differentiable."""
        threshold = self.threshold_of(scores)
        if not self.inner:
            return masked_weight(weight, scores, threshold, binary=self.binary, dtype=dtype)
        ones = torch.ones_like(scores)
        coats = masked_weight(ones, scores, threshold)
        for kept in self.inner:
            coats += masked_weight(ones, scores, find_threshold(scores.detach(), kept))
        return coated_weight(weight, coats, dtype)


class _MaskedWeight(torch.autograd.Function):
    """Saves the frozen weight and the scores for backward; both exist anyway."""

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, weight: Tensor, plan: MaskPlan, dtype: torch.dtype
    ) -> Tensor:
        ctx.save_for_backward(scores, weight)
        ctx.coats = 1 + len(plan.inner)
        return plan.apply(scores, weight, dtype)

    @staticmethod
    @once_differentiable("a supermask")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scores, weight = ctx.saved_tensors
        # For biprop, too: the mask's gradient is grad * sign(weight), multiplied by |weight|.
        return score_grad(grad, weight, scores, scale=float(ctx.coats)), None, None, None


def supermask_weight(
    scores: Tensor, weight: Tensor, plan: MaskPlan, dtype: torch.dtype | None = None
) -> Tensor:
    """The masked weight; differentiable towards ``scores`` alone.

    The mask keeps the weights with the largest ``|score|``. Its gradient is passed straight through
    to the magnitude of every score, kept or not: the score's gradient is ``grad * weight *
    sign(score)``. This holds for biprop too: its mask is multiplied by ``sign(weight)``, and its
    gradient by ``|weight|``. Not differentiable twice.

    With n nested masks m_i, the weight is ``weight * sum(m_i)``. Each mask passes its gradient to
    the magnitude of every score, so the sum over i is ``n * grad * weight * sign(score)``, as in
    the public code of Okoshi et al. 2022, *Multicoated Supermasks Enhance Hidden Networks*.

    Source: Ramanujan et al. 2019 (arXiv 1911.13299), section 3, and the public code of both papers,
    which takes the magnitude of the scores; Diffenderfer & Kailkhura 2021 (arXiv 2103.09377).

    Args:
        scores, weight: of equal shape, such as ``[O, I / groups, kH, kW]``.
        dtype: of the result; None for that of ``weight``.
    """
    dtype = dtype or weight.dtype
    if needs_operators():
        return _straight_through(scores, weight, plan, dtype)
    if scores.requires_grad and torch.is_grad_enabled():
        return _MaskedWeight.apply(scores, weight, plan, dtype)
    return plan.apply(scores.detach(), weight, dtype)


def _straight_through(scores: Tensor, weight: Tensor, plan: MaskPlan, dtype: torch.dtype) -> Tensor:
    """The masked weight by PyTorch's operators, for ``torch.func`` and forward-mode AD."""
    masked = plan.apply(scores.detach(), weight, dtype)
    passed = scores.abs() * weight.detach() * (1 + len(plan.inner))
    return masked + (passed - passed.detach()).to(dtype)


def coated_weight(weight: Tensor, coats: Tensor, dtype: torch.dtype) -> Tensor:
    """``weight`` times the number of masks that keep each element, as ``dtype``."""
    product = weight.detach() * coats.to(weight.dtype)
    # Compiled, a conversion to the same type as the Function's last operation loses the gradient.
    return product if product.dtype == dtype else product.to(dtype)
