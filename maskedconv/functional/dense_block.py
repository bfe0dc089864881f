"""A dense block as one autograd.Function: one buffer of features, and one of their gradients.

Module by module, autograd adds a gradient to that of all features before it once a layer, in new
memory. Here each layer's backward adds it to the one buffer. The gradients of all layers are ready
at the end of the block. Not differentiable twice, no ``torch.func`` transforms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from maskedconv.functional.autograd import once_differentiable_lazily
from maskedconv.functional.batch_norm import normalisation, uses_batch_moments
from maskedconv.functional.bn_relu_step import (
    Backward,
    Convolution,
    FilterNeeds,
    NormNeeds,
    Step,
    run,
)
from maskedconv.functional.features import GrowingFeatures, channel_buffer
from maskedconv.functional.filter_bank import TENSORS, bank_of
from maskedconv.ops.bn_relu import Normalisation


class Unit(NamedTuple):
    """A BatchNorm, a ReLU and a convolution."""

    bn: nn.BatchNorm2d
    conv: Convolution

    def tensors(self) -> tuple[Tensor | None, ...]:
        """The tensors that autograd has to see, ``_TENSORS`` in number."""
        return self.bn.weight, self.bn.bias, *self.conv.bank.tensors()

    @property
    def out_channels(self) -> int:
        """Of the convolution."""
        return self.conv.bank.shape[0]


_TENSORS = 2 + TENSORS
# Units one after another. The features that the last one computes are appended.
Layer = Sequence[Unit]


def dense_block(input: Tensor, layers: Sequence[Layer]) -> Tensor:
    """Every layer reads all features so far, and appends its own.

    Args:
        input: ``[N, C, H, W]``, the first features.
        layers: their convolutions keep the size of the image and compute in the dtype of ``input``.

    Returns:
        ``[N, C', H, W]``, all features: a view of a buffer.

    Raises:
        ValueError: in training, with a single value for each channel.
    """
    tensors = [tensor for layer in layers for unit in layer for tensor in unit.tensors()]
    return _DenseBlock.apply(input, layers, *tensors)


class _Kept(NamedTuple):
    """The tensors of a unit that backward needs, besides its parameters.

    Attributes:
        input: None if it is the features.
        statistics: of its BatchNorm.
        packed: the full weight, or None.
    """

    input: Tensor | None
    statistics: Tensor
    packed: Tensor | None


class _DenseBlock(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, layers: Sequence[Layer], *tensors: Tensor | None
    ) -> Tensor:
        growth = sum(layer[-1].out_channels for layer in layers)
        features = GrowingFeatures(input, input.size(1) + growth)
        kept: list[Tensor | None] = []
        ctx.of_batch = []
        for layer in layers:
            value = features.whole
            known = features.moments() if uses_batch_moments(layer[0].bn, value) else None
            for unit in layer:
                norm = normalisation(value, unit.bn, known)
                (output,), (packed,) = run(value, Step(norm, (unit.conv,)), True)
                kept += _Kept(None if unit is layer[0] else value, norm.statistics, packed)
                ctx.of_batch.append(norm.uses_batch_stats)
                value, known = output, None
            features.append(value)
        ctx.layers = layers
        ctx.save_for_backward(features.whole, *kept, *tensors)
        return features.whole

    @staticmethod
    @once_differentiable_lazily
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        features, *saved = ctx.saved_tensors
        grads: list[tuple[Tensor | None, ...]] = []
        grad = _copied(grad_output)
        end = grad.size(1)
        units = _saved_units(ctx, saved)
        for index, layer in reversed(list(enumerate(ctx.layers))):
            first = end - layer[-1].out_channels
            grad_value, before = grad[:, first:end], (features[:, :first], grad[:, :first])
            for unit in reversed(layer):
                step, kept, needed = next(units)
                is_first = unit is layer[0]
                needs_input = not is_first or index > 0 or ctx.needs_input_grad[0]
                input, added_to = before if is_first else (kept.input, None)
                assert input is not None
                backward = Backward(input, step, NormNeeds(needs_input, *needed[:2]))
                filters = backward.of_filters(
                    0, grad_value, kept.packed, FilterNeeds(needed[2], needed[4])
                )
                grad_input, *norm = backward.of_norm(added_to)
                grads.append((*norm, filters.learned, None, filters.bias, None))
                if not is_first:
                    assert grad_input is not None
                    grad_value = grad_input
            end = first
        return grad[:, :end], None, *(part for unit in reversed(grads) for part in unit)


def _saved_units(
    ctx: Any, saved: Sequence[Tensor | None]
) -> Iterator[tuple[Step, _Kept, tuple[bool, ...]]]:
    """The steps of the units with what was kept of them and which tensors need a gradient.

    From the last to the first.
    """
    units = [unit for layer in ctx.layers for unit in layer]
    width = len(_Kept._fields)
    tensors, needed = saved[width * len(units) :], ctx.needs_input_grad[2:]
    for i in reversed(range(len(units))):
        value, statistics, packed = saved[width * i : width * (i + 1)]
        assert statistics is not None
        own = slice(_TENSORS * i, _TENSORS * (i + 1))
        weight, bias, *filters = tensors[own]
        norm = Normalisation(weight, bias, statistics, units[i].bn.eps, ctx.of_batch[i])
        bank, plan = units[i].conv
        conv = Convolution(bank_of(filters, bank.layout), plan)
        yield Step(norm, (conv,)), _Kept(value, statistics, packed), needed[own]


def _copied(grad_output: Tensor) -> Tensor:
    """The gradient of the features in memory of its own, to which the layers' gradients are added.

    That of another consumer of the features may be the same tensor.
    """
    channels = grad_output.size(1)
    return channel_buffer(grad_output, channels)[:, :channels].copy_(grad_output)
