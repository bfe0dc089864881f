"""A layer saves no more for backward than nn.Conv2d, and computes no zeroed filters."""

from __future__ import annotations

import pytest
import torch

from bench.saved_bytes import saved_bytes
from maskedconv.nn import MaskedConv2d


def kept_by(module, x):
    """Bytes that a forward pass keeps for backward, without parameters and buffers."""
    return saved_bytes(lambda: module(x), [*module.parameters(), *module.buffers()])


def conv_bytes(layer, x):
    """nn.Conv2d saves the input and the weight."""
    return kept_by(layer.to_conv2d(), x) + layer.weight.nbytes


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("frozen", ["random", "zero"])
@pytest.mark.parametrize("slice_dim", [0, 1, 2, 3])
@pytest.mark.parametrize("learned", [0, 0.1, 0.5, 1.0])
def test_saved_for_backward_never_exceeds_conv2d(learned, slice_dim, frozen, memory_format):
    layer = MaskedConv2d(
        16, 24, 3, padding=1, learned=learned, slice_dim=slice_dim, frozen=frozen
    ).to(memory_format=memory_format)
    x = torch.randn(4, 16, 12, 12).to(memory_format=memory_format).requires_grad_()
    assert kept_by(layer, x) <= conv_bytes(layer, x)


@pytest.mark.parametrize("frozen", ["random", "zero"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_input_channels_keep_their_share_of_the_input(frozen, memory_format):
    layer = MaskedConv2d(16, 24, 3, padding=1, learned=4, slice_dim=1, frozen=frozen)
    x = torch.randn(4, 16, 12, 12).to(memory_format=memory_format)
    # No gradient of x is asked for: no bank is kept.
    assert kept_by(layer, x) == x.nbytes * 4 // 16


@pytest.mark.parametrize("frozen", ["random", "zero"])
@pytest.mark.parametrize("slice_dim", [0, 1, 2, 3])
def test_nothing_learned_keeps_nothing_of_the_input(slice_dim, frozen):
    layer = MaskedConv2d(16, 24, 3, padding=1, learned=0, slice_dim=slice_dim, frozen=frozen)
    x = torch.randn(4, 16, 12, 12, requires_grad=True)
    assert kept_by(layer, x) == 0
    frozen_later = MaskedConv2d(16, 24, 3, padding=1, learned=1.0).requires_grad_(False)
    assert kept_by(frozen_later, x) == 0


@pytest.mark.parametrize("slice_dim", [0, 1, 2, 3])
def test_zeroed_filters_are_not_computed(slice_dim):
    """Counted in FLOPs of the operators that run, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    def flops(frozen, learned):
        layer = MaskedConv2d(
            16, 16, 4, padding="same", bias=False, learned=learned, slice_dim=slice_dim,
            frozen=frozen,
        )  # fmt: skip
        x = torch.randn(2, 16, 16, 16, requires_grad=True)
        with FlopCounterMode(display=False) as counter:
            layer(x).sum().backward()
        return counter.get_total_flops()

    # A quarter is learned; a shorter kernel computes a few surplus rows at the border.
    quarter, share = (1, 0.25 * 1.2) if slice_dim >= 2 else (4, 0.25)
    whole = flops("random", 1.0)
    assert flops("zero", 0) == 0
    assert flops("zero", quarter) <= share * whole
    # With random filters, only the weight gradient, a third of the work, shrinks.
    assert flops("random", quarter) <= (2 + share) / 3 * whole
