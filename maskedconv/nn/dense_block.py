"""Dense blocks of norms, ReLUs and convolutions, as one step where their modules allow it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from maskedconv.functional import dense_block as functional
from maskedconv.functional.batch_norm import is_plain_norm, is_plain_norm_of
from maskedconv.functional.dense_block import Layer, Unit
from maskedconv.nn.bn_relu_conv2d import convolution_of

# Norm and convolution, in the order in which a layer runs them.
Modules = Sequence[tuple[nn.Module, nn.Module]]


def dense_block(input: Tensor, layers: Sequence[Modules]) -> Tensor | None:
    """The features of a dense block, ``[N, C', H, W]``, whose layers are bn-relu-conv each.

    None if something has to be computed module by module: hooks, zeros in the filters, norms
    and convolutions of other types, or a traced graph; or if there is no backward pass, because the
    activations of all layers are alive at the end of the step.

    Args:
        input: ``[N, C, H, W]``.
        layers: their modules, as of :func:`maskedconv.functional.dense_block.dense_block`.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    if not layers or not is_plain_norm(layers[0][0][0], input):
        return None
    units = _units(input, layers)
    return None if units is None else functional.dense_block(input, units)


def _units(input: Tensor, layers: Sequence[Modules]) -> list[Layer] | None:
    channels, found = input.size(1), []
    for modules in layers:
        layer = _layer(input, modules, channels)
        if layer is None:
            return None
        found.append(layer)
        channels += layer[-1].out_channels
    return found


def _layer(input: Tensor, modules: Modules, channels: int) -> Layer | None:
    units = []
    for bn, conv in modules:
        found = convolution_of(conv, input, channels)
        if found is None or found.plan.dtype != input.dtype or not is_plain_norm_of(bn, channels):
            return None
        assert isinstance(bn, nn.BatchNorm2d)
        units.append(Unit(bn, found))
        channels = units[-1].out_channels
    return units
