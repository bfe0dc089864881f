"""The problem that bn_statistics solves."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple

import torch
from torch import Tensor

from maskedconv.ops.geometry import pixel_pitch
from maskedconv.ops.kinds import describe_cuda, why_other_device

# Found faster than as attributes of torch: they are asked for in each step.
_FLOAT, _COUNT = torch.float32, torch.int64


class RunningStatistics(NamedTuple):
    """The running statistics of a BatchNorm, which the operator moves in place.

    Attributes:
        mean, var: ``[C]``; the variance is unbiased. None if only batches are counted.
        batches: ``[]``, int64, how many there were; None if they are not counted.
        momentum: the fraction by which they move; None for the mean over all batches.
    """

    mean: Tensor | None
    var: Tensor | None
    batches: Tensor | None
    momentum: float | None

    def cannot_move(self, channels: int) -> str:
        """The reason why kernels cannot move them, or an empty string."""
        mean, var, batches, momentum = self
        for part in (mean, var):
            if part is None:
                continue
            if part.dtype is not _FLOAT or not part.is_contiguous():
                return f"its kernel moves statistics of float32; these are {part.dtype}"
            if part.shape != (channels,):
                size = list(part.shape)
                return f"its kernel moves statistics of [{channels}]; these are {size}"
        if batches is not None and not (batches.dtype is _COUNT and batches.numel() == 1):
            kind = f"{list(batches.shape)} of {batches.dtype}"
            return f"its kernel counts batches by one int64; this is {kind}"
        if momentum is not None and momentum < 0:
            return f"its kernel is for a momentum of at least 0; this is {momentum}"
        return ""


class StatisticsProblem(NamedTuple):
    """The statistics by which a BatchNorm in training normalises its input.

    Attributes:
        input: ``[N, C, H, W]``, at least two pixels; also a view of the first channels of a wider
            tensor.
        weight, bias: γ and β, ``[C]``, or None.
        eps: of the BatchNorm.
        running: what moves with them, or None.
        moments: ``[2, C]``, mean and biased variance of the input, if they are known.
        out: ``[5, C]``, memory for the result; None for new memory.
        backend: the one that must compute it; empty for none in particular.
        summand: like ``input``. The statistics are those of ``input + summand``.
        total: like ``input``, memory to which that sum is written; given with ``summand``.
    """

    input: Tensor
    weight: Tensor | None
    bias: Tensor | None
    eps: float
    running: RunningStatistics | None = None
    moments: Tensor | None = None
    out: Tensor | None = None
    backend: str = ""
    summand: Tensor | None = None
    total: Tensor | None = None

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that a kernel reads."""
        return (self.input,) if self.summand is None else (self.input, self.summand)

    def cannot_use(self) -> str:
        """The reason why kernels cannot use the tensors of the norm, or an empty string."""
        input, weight, bias, _, running, moments, out, *_ = self
        if running is None:
            return why_other_device((weight, bias, moments, out), input)
        mean, var, batches, _ = running
        parts = weight, bias, moments, out, mean, var, batches
        return why_other_device(parts, input) or running.cannot_move(input.shape[1])

    def kind(self) -> Hashable:
        """Everything that the decision for a backend may depend on."""
        input, unusable = self.input, self.cannot_use()
        known = self.moments is not None
        if input.is_cuda:
            return describe_cuda(*self.tensors()), unusable, known
        layout, added = (input.dtype, pixel_pitch(input) > 0), None
        if self.summand is not None:
            added = self.summand.dtype, pixel_pitch(self.summand) > 0
        return input.device, input.shape, layout, added, unusable, known

    def why_refused(self, cannot_take: Callable[[Tensor], str]) -> str:
        """The reason why GPU kernels cannot take this problem, or an empty string.

        Args:
            cannot_take: the reason for one tensor.
        """
        if reason := self.cannot_use():
            return reason
        for tensor in self.tensors():
            if tensor.dtype != self.input.dtype:
                return f"the input is {self.input.dtype}, a tensor of its sum {tensor.dtype}"
            if reason := cannot_take(tensor):
                return reason
        return ""

    def without_effects(self) -> StatisticsProblem:
        """The same problem, which can be computed again."""
        return self._replace(running=None, out=None)

    def stand_in(self, random: Callable[[Tensor], Tensor]) -> StatisticsProblem:
        """The same problem with values of ``random``."""
        input, weight, bias, _, _, moments, _, _, summand, _ = self
        weight, bias, moments, summand = (
            None if part is None else random(part) for part in (weight, bias, moments, summand)
        )
        if moments is not None:
            moments = moments.abs()
        return self._replace(
            input=random(input), weight=weight, bias=bias, moments=moments, summand=summand
        )
