"""Dense blocks of norms, ReLUs and convolutions, as one step where their modules allow it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from maskedconv.functional import block_step
from maskedconv.functional import dense_block as functional
from maskedconv.functional.batch_norm import (
    fixed_statistics,
    is_plain_norm,
    is_plain_norm_of,
    running_statistics,
)
from maskedconv.functional.block_step import UnitTensors
from maskedconv.functional.bn_relu_step import BNReLUPlan
from maskedconv.nn.bn_relu_conv2d import convolution_of

# Norm and convolution, in the order in which a layer runs them.
Modules = Sequence[tuple[nn.Module, nn.Module]]


def dense_block(input: Tensor, layers: Sequence[Modules]) -> Tensor | None:
    """The features of a dense block, ``[N, C', H, W]``, whose layers are bn-relu-conv each.

    None if something has to be computed module by module: hooks, zeros in the filters, or norms
    and convolutions of other types; or if there is no backward pass, because the activations of all
    layers are alive at the end of the step.

    Args:
        input: ``[N, C, H, W]``.
        layers: their modules, as of :func:`maskedconv.functional.dense_block.dense_block`.
    """
    if not torch.is_grad_enabled() or not layers or not is_plain_norm(layers[0][0][0], input):
        return None
    plan: list[tuple[BNReLUPlan, ...]] = []
    units: list[UnitTensors] = []
    channels = input.size(1)
    for modules in layers:
        layer = _layer(input, modules, channels)
        if layer is None:
            return None
        plan.append(tuple(unit_plan for unit_plan, _ in layer))
        units += [unit for _, unit in layer]
        channels += block_step.out_channels(units[-1], plan[-1][-1])
    norms = [cast(nn.BatchNorm2d, bn) for modules in layers for bn, _ in modules]
    running = [running_statistics(bn) for bn in norms]
    return functional.dense_block(input, tuple(plan), units, running)


def _layer(
    input: Tensor, modules: Modules, channels: int
) -> list[tuple[BNReLUPlan, UnitTensors]] | None:
    """The units of a layer; None if one of them has to be called."""
    units = []
    for bn, conv in modules:
        found = convolution_of(conv, input, channels)
        if found is None or found.plan.dtype != input.dtype or not is_plain_norm_of(bn, channels):
            return None
        assert isinstance(bn, nn.BatchNorm2d)
        (bank, plan), fixed = found, fixed_statistics(input, bn)
        unit = BNReLUPlan(bn.eps, fixed is None, (plan,))
        units.append((unit, UnitTensors(bn.weight, bn.bias, fixed, *bank.tensors())))
        channels = bank.shape[0]
    return units
