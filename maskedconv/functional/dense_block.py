"""A dense block as one autograd.Function: one buffer of features, and one of their gradients.

Module by module, autograd adds a gradient to that of all features before it once a layer, in new
memory. Here each layer's backward adds it to the one buffer. The gradients of all layers are ready
at the end of the block. Not differentiable twice, no ``torch.func`` transforms.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any

import torch
from torch import Tensor

from maskedconv.functional import block_operators, block_step
from maskedconv.functional.batch_norm import check_batch_moments
from maskedconv.functional.block_step import (
    SAVED,
    UNIT_TENSORS,
    BlockNeeds,
    BlockPlan,
    SavedBlock,
    SavedUnit,
    UnitNeeds,
    UnitTensors,
    units_of,
)
from maskedconv.functional.once_differentiable import once_differentiable
from maskedconv.ops.bn_statistics import RunningStatistics, reference

Running = Sequence[RunningStatistics | None]


def dense_block(
    input: Tensor, plan: BlockPlan, units: Sequence[UnitTensors], running: Running
) -> Tensor:
    """Every layer reads all features so far, and appends its own.

    Args:
        input: ``[N, C, H, W]``, the first features.
        plan: its convolutions keep the size of the image and compute in the dtype of ``input``.
        units: the tensors of each norm and convolution.
        running: the running statistics that each norm moves.

    Returns:
        ``[N, C', H, W]``, all features: a view of a buffer.

    Raises:
        ValueError: in training, with a single value for each channel.
    """
    of_batch = [unit.uses_batch_stats for layer in plan for unit in layer]
    if any(of_batch):
        check_batch_moments(input)
    tensors = [tensor for unit in units for tensor in unit]
    if not torch.compiler.is_compiling():
        return _DenseBlock.apply(plan, running, input, *tensors)
    features, *statistics = _DenseBlock.apply(plan, None, input, *tensors)
    _move(list(compress(running, of_batch)), statistics, input.numel() // input.size(1))
    return features


@torch.no_grad()
def _move(running: Running, statistics: Sequence[Tensor], count: int) -> None:
    """Moves the running statistics by operators that torch.compile sees."""
    for each, (mean, var, *_) in zip(running, statistics, strict=True):
        if each is not None:
            reference.move(each, mean, var, count)


class _DenseBlock(torch.autograd.Function):
    """Compiled, ``running`` is None, and the statistics of batches are further outputs."""

    @staticmethod
    def forward(
        ctx: Any, plan: BlockPlan, running: Running | None, input: Tensor, *tensors: Tensor | None
    ) -> Any:
        units = units_of(tensors)
        if running is None:
            features, saved = block_operators.run(input, plan, units)
        else:
            features, saved = block_step.run(input, plan, units, running)
        ctx.plan = plan
        ctx.save_for_backward(features, *(tensor for each in saved for tensor in each), *tensors)
        if running is not None:
            return features
        statistics = block_step.of_batch(units, saved)
        ctx.mark_non_differentiable(*statistics)
        return features, *statistics

    @staticmethod
    @once_differentiable("a dense block")
    def backward(ctx: Any, grad_output: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        features, *tensors = ctx.saved_tensors
        count = sum(len(layer) for layer in ctx.plan)
        end = SAVED * count
        saved = [SavedUnit(*tensors[i : i + SAVED]) for i in range(0, end, SAVED)]
        block = SavedBlock(ctx.plan, units_of(tensors[end:]), features, saved)
        needs = _needs(ctx.needs_input_grad[2:])
        module = block_operators if torch.compiler.is_compiling() else block_step
        grad_input, units = module.gradients(block, grad_output, needs)
        grads = [
            grad
            for (_, weight, bias), (learned, filter_bias) in units
            for grad in (weight, bias, None, learned, None, filter_bias, None)
        ]
        return None, None, grad_input, *grads


def _needs(needed: Sequence[bool]) -> BlockNeeds:
    """The needs of a block, from the flags of the input and of all tensors."""
    own = [needed[i : i + UNIT_TENSORS] for i in range(1, len(needed), UNIT_TENSORS)]
    return BlockNeeds(needed[0], [UnitNeeds(each[0], each[1], each[3], each[5]) for each in own])
