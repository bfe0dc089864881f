"""A dense block and its gradients as two registered operators.

torch.compile takes them into its graph as they are. Of PyTorch's operators it would keep a
concatenation for each layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from maskedconv.functional import block_step
from maskedconv.functional.block_step import (
    BlockNeeds,
    BlockPlan,
    SavedBlock,
    SavedUnit,
    UnitGrads,
    UnitNeeds,
    UnitTensors,
    units_of,
)
from maskedconv.functional.bn_relu_step import FilterGrads
from maskedconv.functional.features import channel_buffer
from maskedconv.functional.registration import (
    NUMBERS,
    as_promised,
    like,
    needed,
    numbers_of,
    plan_of,
)
from maskedconv.ops.bn_statistics.reference import moments_type
from maskedconv.ops.geometry import memory_format_of

_LIBRARY = torch.library.Library("maskedconv", "FRAGMENT")
_NEEDS = len(UnitNeeds._fields)
_PLAN = "int[] layers, float[] eps, bool[] uses_batch_stats, int[] convs, str[] backends"
_LIBRARY.define(f"dense_block(Tensor input, Tensor?[] tensors, {_PLAN}) -> Tensor[]")
_LIBRARY.define(
    "dense_block_backward(Tensor features, Tensor[] statistics, Tensor[] values, "
    f"Tensor?[] tensors, {_PLAN}, Tensor grad_output, bool[] needs) -> Tensor[]"
)


def run(
    input: Tensor, plan: BlockPlan, units: Sequence[UnitTensors]
) -> tuple[Tensor, list[SavedUnit]]:
    """:func:`maskedconv.functional.block_step.run`, which moves no running statistics."""
    features, *rest = torch.ops.maskedconv.dense_block(input, _tensors(units), *_flat(plan))
    count = sum(unit.fixed is None for unit in units)
    return features, _saved(plan, units, rest[:count], rest[count:])


def gradients(
    block: SavedBlock, grad_output: Tensor, needs: BlockNeeds
) -> tuple[Tensor | None, list[UnitGrads]]:
    """:func:`maskedconv.functional.block_step.gradients`."""
    plan, units, features, saved = block
    flags = [needs.input, *(flag for unit in needs.units for flag in unit)]
    found = iter(
        torch.ops.maskedconv.dense_block_backward(
            features, block_step.of_batch(units, saved), _values(saved), _tensors(units),
            *_flat(plan), grad_output, flags,
        )
    )  # fmt: skip
    grad_input, *grads = (next(found) if flag else None for flag in flags)
    return grad_input, [
        ((None, grads[i], grads[i + 1]), FilterGrads(*grads[i + 2 : i + 4]))
        for i in range(0, len(grads), _NEEDS)
    ]


def _tensors(units: Sequence[UnitTensors]) -> list[Tensor | None]:
    return [tensor for unit in units for tensor in unit]


def _values(saved: Sequence[SavedUnit]) -> list[Tensor]:
    return [each.input for each in saved if each.input is not None]


def _saved(
    plan: BlockPlan,
    units: Sequence[UnitTensors],
    statistics: Sequence[Tensor],
    values: Sequence[Tensor],
) -> list[SavedUnit]:
    tables, inputs, found = iter(statistics), iter(values), []
    of_layers = [place for layer in plan for place in range(len(layer))]
    for unit, place in zip(units, of_layers, strict=True):
        table = next(tables) if unit.fixed is None else unit.fixed
        found.append(SavedUnit(next(inputs) if place else None, table, None))
    return found


def _flat(plan: BlockPlan) -> tuple[list[Any], ...]:
    """The arguments ``_PLAN``."""
    units = [unit for layer in plan for unit in layer]
    return (
        [len(layer) for layer in plan],
        [unit.eps for unit in units],
        [unit.uses_batch_stats for unit in units],
        [number for unit in units for number in numbers_of(unit)],
        [unit.convs[0].backend for unit in units],
    )


def _plan(
    dtype: torch.dtype,
    layers: Sequence[int],
    eps: Sequence[float],
    uses_batch_stats: Sequence[bool],
    numbers: Sequence[int],
    backends: Sequence[str],
) -> BlockPlan:
    each = iter(
        plan_of(eps[i], uses, tuple(numbers[NUMBERS * i :][:NUMBERS]), backends[i], dtype)
        for i, uses in enumerate(uses_batch_stats)
    )
    return tuple(tuple(next(each) for _ in range(count)) for count in layers)


@torch.library.impl(_LIBRARY, "dense_block", "CompositeExplicitAutograd")
def _run(input: Tensor, tensors: Sequence[Tensor | None], *flat: Any) -> list[Tensor]:
    plan, units = _plan(input.dtype, *flat), units_of(tensors)
    features, saved = block_step.run(input, plan, units, [None] * len(units))
    layout = memory_format_of(input)
    values = (value.contiguous(memory_format=layout) for value in _values(saved))
    return [features, *block_step.of_batch(units, saved), *values]


@torch.library.register_fake("maskedconv::dense_block", lib=_LIBRARY)
def _fake_run(input: Tensor, tensors: Sequence[Tensor | None], *flat: Any) -> list[Tensor]:
    plan, units = _plan(input.dtype, *flat), units_of(tensors)
    each, channels = iter(units), input.size(1)
    statistics, values = [], []
    for layer in plan:
        width = channels
        for place, unit_plan in enumerate(layer):
            unit = next(each)
            if unit.fixed is None:
                statistics.append(input.new_empty((5, width), dtype=moments_type(input)))
            if place:
                values.append(_like(input, width))
            width = block_step.out_channels(unit, unit_plan)
        channels += width
    return [channel_buffer(input, channels)[:, :channels], *statistics, *values]


def _like(input: Tensor, channels: int) -> Tensor:
    shape = (input.size(0), channels, *input.shape[2:])
    return input.new_empty(shape).contiguous(memory_format=memory_format_of(input))


@torch.library.impl(_LIBRARY, "dense_block_backward", "CompositeExplicitAutograd")
def _run_backward(
    features: Tensor,
    statistics: Sequence[Tensor],
    values: Sequence[Tensor],
    tensors: Sequence[Tensor | None],
    *rest: Any,
) -> list[Tensor]:
    *flat, grad_output, flags = rest
    plan, units = _plan(features.dtype, *flat), units_of(tensors)
    block = SavedBlock(plan, units, features, _saved(plan, units, statistics, values))
    of_units = [UnitNeeds(*flags[i : i + _NEEDS]) for i in range(1, len(flags), _NEEDS)]
    grad_input, grads = block_step.gradients(block, grad_output, BlockNeeds(flags[0], of_units))
    found = [grad_input, *(grad for norm, filters in grads for grad in (*norm[1:], *filters))]
    promised = _fake_backward(features, statistics, values, tensors, *rest)
    return [as_promised(*both) for both in zip(needed(found, flags), promised, strict=True)]


@torch.library.register_fake("maskedconv::dense_block_backward", lib=_LIBRARY)
def _fake_backward(
    features: Tensor,
    statistics: Sequence[Tensor],
    values: Sequence[Tensor],
    tensors: Sequence[Tensor | None],
    *rest: Any,
) -> list[Tensor]:
    *flat, _, flags = rest
    plan, units = _plan(features.dtype, *flat), units_of(tensors)
    growths = block_step.growths(plan, units)
    grad = channel_buffer(features, features.size(1) - growths[-1])
    first = features.size(1) - sum(growths)
    of_units = (
        like(tensor)
        for unit in units
        for tensor in (unit.weight, unit.bias, unit.learned, unit.filter_bias)
    )
    return needed([grad[:, :first], *of_units], flags)
