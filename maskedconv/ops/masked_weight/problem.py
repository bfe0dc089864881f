"""The arguments of masked_weight, of its threshold and of the gradient of its scores."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple

import torch
from torch import Tensor

from maskedconv.ops.kinds import describe_cuda


class Threshold(NamedTuple):
    """Which scores are kept: the last ``num_kept`` of a stable ascending sort by magnitude.

    A NaN counts as the largest magnitude, as in ``torch.sort``.

    Attributes:
        value: 0-d, in the dtype of the scores: the smallest kept magnitude; NaN if none is kept.
        first: 0-d, int64: scores whose magnitude equals ``value`` are kept from this index on. It
            is an index into the flattened scores (row-major, whatever their memory format), 0 if
            all scores of that magnitude are kept, and their number if none is kept.
    """

    value: Tensor
    first: Tensor


class ThresholdProblem(NamedTuple):
    """The threshold that keeps ``num_kept`` of the scores.

    Attributes:
        score: of any shape.
        num_kept: from 0 to the number of scores.
        backend: the forced backend; empty for none.
    """

    score: Tensor
    num_kept: int
    backend: str = ""

    def tensors(self) -> tuple[Tensor]:
        """The tensors that a kernel reads."""
        return (self.score,)

    def kind(self) -> Hashable:
        """Everything that the choice of a backend may depend on."""
        return kind_of(self.score)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the threshold's value."""
        return self.score.dtype


class MaskProblem(NamedTuple):
    """A weight whose elements with small scores are replaced by zero.

    The arithmetic is in float32 (float64 if a tensor or the result is), rounded once to ``dtype``.

    Attributes:
        weight, score: of equal shape, such as ``[O, I / groups, kH, kW]``.
        threshold: which scores are kept.
        binary: False: ``weight * scale`` where kept (edge-popup). True: ``sign(weight) * alpha *
            scale`` where kept, with alpha the mean magnitude of the kept weights (biprop).
        scale: a factor of all elements.
        dtype: of the result, which has the memory format of the weight.
        backend: the forced backend; empty for none.
    """

    weight: Tensor
    score: Tensor
    threshold: Threshold
    binary: bool
    scale: float
    dtype: torch.dtype
    backend: str = ""

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that a kernel reads."""
        return self.weight, self.score, *self.threshold

    def kind(self) -> Hashable:
        """Everything that the choice of a backend may depend on."""
        return kind_of(*self.threshold, self.score, self.weight), self.binary, self.dtype

    def stand_in(self, random: Callable[[Tensor], Tensor]) -> MaskProblem:
        """The same problem with values of ``random``; a part of them is kept."""
        value, first = self.threshold
        threshold = Threshold(torch.full_like(value, 0.5), torch.zeros_like(first))
        weight, score = random(self.weight), random(self.score)
        return self._replace(weight=weight, score=score, threshold=threshold)


class ScoreGradProblem(NamedTuple):
    """The straight-through gradient of every score, from the gradient of the masked weight.

    ``sign(score)`` is 0 at 0 and NaN at NaN.

    Attributes:
        grad, weight, score: of equal shape.
        binary: False: ``grad * weight * scale * sign(score)`` (edge-popup). True: ``grad * |weight|
            * scale * sign(score)`` (biprop).
        dtype: of the result, which has the memory format of the weight.
        backend: the forced backend; empty for none.
    """

    grad: Tensor
    weight: Tensor
    score: Tensor
    binary: bool
    scale: float
    dtype: torch.dtype
    backend: str = ""

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """The tensors that a kernel reads."""
        return self.grad, self.weight, self.score

    def kind(self) -> Hashable:
        """Everything that the choice of a backend may depend on."""
        return kind_of(self.grad, self.score, self.weight), self.dtype


AnyMaskProblem = ThresholdProblem | MaskProblem | ScoreGradProblem


def kind_of(*tensors: Tensor) -> Hashable:
    """Everything about the tensors that the choice of a backend may depend on."""
    if tensors[0].is_cuda:
        return describe_cuda(*tensors)
    # Kernels refuse empty tensors, and permutations of more than four dimensions.
    last = tensors[-1]
    strides = last.stride() if last.dim() > 4 else ()
    return last.shape, strides, tuple((t.device, t.dtype) for t in tensors)
