"""The computation of a dense block and of its gradients.

The features of all layers are in one buffer, and so are their gradients. A unit is a BatchNorm, a
ReLU and a convolution. A layer is units one after another; the features of the last are appended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from maskedconv.functional import bn_relu_step
from maskedconv.functional.batch_norm import batch_statistics
from maskedconv.functional.bn_relu_step import (
    Backward,
    BNReLUPlan,
    FilterGrads,
    FilterNeeds,
    NormNeeds,
    Step,
)
from maskedconv.functional.features import GrowingFeatures, channel_buffer
from maskedconv.ops.bn_relu import Gradients
from maskedconv.ops.bn_statistics import RunningStatistics

# The units of each layer, besides their tensors.
BlockPlan = tuple[tuple[BNReLUPlan, ...], ...]


class UnitTensors(NamedTuple):
    """The tensors of a unit.

    Attributes:
        weight, bias: of the norm, or None.
        fixed: the statistics that its norm normalises with, as of
            :class:`maskedconv.ops.bn_relu.Normalisation`; None for those of the batch.
        learned, frozen, filter_bias, frozen_bias: as of
            :class:`maskedconv.functional.filter_bank.FilterBank`.
    """

    weight: Tensor | None
    bias: Tensor | None
    fixed: Tensor | None
    learned: Tensor | None
    frozen: Tensor | None
    filter_bias: Tensor | None
    frozen_bias: Tensor | None

    def step(self, plan: BNReLUPlan, statistics: Tensor) -> Step:
        """The step with these tensors."""
        weight, bias, _, *filters = self
        return plan.step(weight, bias, statistics, filters)


class SavedUnit(NamedTuple):
    """The tensors of a unit that backward needs, besides its own.

    Attributes:
        input: None if it is the features.
        statistics: of its norm.
        packed: the full weight, or None.
    """

    input: Tensor | None
    statistics: Tensor
    packed: Tensor | None


UNIT_TENSORS, SAVED = len(UnitTensors._fields), len(SavedUnit._fields)


class SavedBlock(NamedTuple):
    """A block as backward needs it; its features are ``[N, C', H, W]``."""

    plan: BlockPlan
    units: Sequence[UnitTensors]
    features: Tensor
    saved: Sequence[SavedUnit]


class UnitNeeds(NamedTuple):
    """The tensors of a unit whose gradients are needed."""

    weight: bool
    bias: bool
    learned: bool
    filter_bias: bool


class BlockNeeds(NamedTuple):
    """The tensors of a block whose gradients are needed."""

    input: bool
    units: Sequence[UnitNeeds]


UnitGrads = tuple[Gradients, FilterGrads]


def units_of(tensors: Sequence[Tensor | None]) -> list[UnitTensors]:
    """The units whose tensors these are, one after the other."""
    starts = range(0, len(tensors), UNIT_TENSORS)
    return [UnitTensors(*tensors[i : i + UNIT_TENSORS]) for i in starts]


def of_batch(units: Sequence[UnitTensors], saved: Sequence[SavedUnit]) -> list[Tensor]:
    """The statistics of units that normalise by the batch."""
    return [each.statistics for unit, each in zip(units, saved, strict=True) if unit.fixed is None]


def out_channels(unit: UnitTensors, plan: BNReLUPlan) -> int:
    """The number of filters."""
    (conv,) = plan.convs
    assert unit.learned is not None
    count = unit.learned.size(0)
    if conv.slice_dim != 0:
        return count
    return count + (conv.zeros if unit.frozen is None else unit.frozen.size(0))


def growths(plan: BlockPlan, units: Sequence[UnitTensors]) -> list[int]:
    """The channels that each layer appends."""
    found, end = [], 0
    for layer in plan:
        end += len(layer)
        found.append(out_channels(units[end - 1], layer[-1]))
    return found


def run(
    input: Tensor,
    plan: BlockPlan,
    units: Sequence[UnitTensors],
    running: Sequence[RunningStatistics | None],
) -> tuple[Tensor, list[SavedUnit]]:
    """All features ``[N, C', H, W]``, and tensors for backward; moves the running statistics."""
    features = GrowingFeatures(input, input.size(1) + sum(growths(plan, units)))
    saved: list[SavedUnit] = []
    each = zip(units, running, strict=True)
    for layer in plan:
        value, first = features.whole, True
        known = features.moments() if layer[0].uses_batch_stats else None
        for unit_plan in layer:
            unit, moved = next(each)
            statistics = unit.fixed
            if statistics is None:
                norm = unit.weight, unit.bias, unit_plan.eps
                statistics = batch_statistics(value, norm, moved, known)
            (output,), (packed,) = bn_relu_step.run(value, unit.step(unit_plan, statistics), True)
            saved.append(SavedUnit(None if first else value, statistics, packed))
            value, known, first = output, None, False
        features.append(value)
    return features.whole, saved


def gradients(
    block: SavedBlock, grad_output: Tensor, needs: BlockNeeds
) -> tuple[Tensor | None, list[UnitGrads]]:
    """The gradients of the input and of each unit; ``grad_output [N, C', H, W]`` stays as it is."""
    found: list[UnitGrads] = []
    grad, index = grad_output, len(block.units)
    for layer, growth in reversed(list(zip(block.plan, growths(*block[:2]), strict=True))):
        first = grad.size(1) - growth
        index -= len(layer)
        grad_value, before = grad[:, first:], _Sum(grad[:, :first])
        if grad is grad_output:
            # Another consumer of the features may have the same tensor as its gradient.
            before = _Sum(channel_buffer(block.features, first)[:, :first], before.added_to)
        for place in reversed(range(len(layer))):
            sum_before = before if place == 0 else None
            grads = _of_unit(block, index + place, layer[place], grad_value, needs, sum_before)
            found.append(grads)
            if place:
                assert grads[0][0] is not None
                grad_value = grads[0][0]
        grad = before.added_to
    return (grad if needs.input else None), found[::-1]


class _Sum(NamedTuple):
    """The gradient of the features that a unit reads; as of BackwardMemory."""

    added_to: Tensor
    added: Tensor | None = None


def _of_unit(
    block: SavedBlock,
    index: int,
    plan: BNReLUPlan,
    grad_output: Tensor,
    needs: BlockNeeds,
    before: _Sum | None,
) -> UnitGrads:
    """The gradients of a unit. ``before`` is given if it reads features."""
    saved, needed = block.saved[index], needs.units[index]
    input = saved.input
    if input is None:
        assert before is not None
        input = block.features[:, : before.added_to.size(1)]
    step = block.units[index].step(plan, saved.statistics)
    norm_needs = NormNeeds(index > 0 or needs.input, needed.weight, needed.bias)
    backward = Backward(input, step, norm_needs)
    filter_needs = FilterNeeds(needed.learned, needed.filter_bias)
    filters = backward.of_filters(0, grad_output, saved.packed, filter_needs)
    return backward.of_norm(*before or ()), filters
