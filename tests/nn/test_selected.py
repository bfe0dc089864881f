"""Filter banks whose learned slices are at any indices, against PyTorch's convolution."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from maskedconv.functional.convolution import convolve
from maskedconv.functional.filter_bank import ExecutionOptions, FilterBank
from maskedconv.functional.selected import Selected, order_of
from maskedconv.ops.geometry import ConvGeometry

SEEDS = range(12)
IN_CHANNELS = 8


def _geometry(draw: random.Random, groups: int) -> ConvGeometry:
    stride, padding = (draw.randint(1, 2), draw.randint(1, 2)), (draw.randint(0, 2), 1)
    return ConvGeometry(stride, padding, (draw.randint(1, 2),) * 2, groups)


def _bank(weight: Tensor, bias: Tensor, dim: int, numbers: list[int], zero: bool) -> FilterBank:
    """The bank with the slices ``numbers`` of ``weight`` learned."""
    rest = [index for index in range(weight.size(dim)) if index not in numbers]
    indices, others = torch.tensor(numbers), torch.tensor(rest)
    selected = Selected(tuple(numbers), indices, order_of(numbers, weight.size(dim)))
    own, frozen_bias = bias, None
    if dim == 0:
        own, frozen_bias = bias[indices], None if zero else bias[others]
    return FilterBank(
        weight.index_select(dim, indices).requires_grad_(),
        None if zero else weight.index_select(dim, others),
        own.clone().requires_grad_(),
        frozen_bias,
        dim,
        len(rest) if zero else 0,
        selected,
    )


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("dim", [0, 1, 2, 3])
def test_equals_the_whole_convolution(
    dim: int, groups: int, zero: bool, channels_last: bool
) -> None:
    if dim == 1 and groups == IN_CHANNELS:
        pytest.skip("one channel in each group: there is nothing to choose")
    for seed in SEEDS:
        torch.manual_seed(seed)
        _check(random.Random(seed), dim, groups, zero, channels_last)


def _check(draw: random.Random, dim: int, groups: int, zero: bool, channels_last: bool) -> None:
    shape = (draw.choice((8, 16)), IN_CHANNELS // groups, 3, 5)
    weight, bias = torch.randn(shape, dtype=torch.float64), torch.randn(shape[0]).double()
    numbers = sorted(draw.sample(range(shape[dim]), draw.randint(1, shape[dim] - 1)))
    bank, geometry = _bank(weight, bias, dim, numbers, zero), _geometry(draw, groups)
    input = torch.randn(2, IN_CHANNELS, 11, 13, dtype=torch.float64)
    if channels_last:
        input = input.contiguous(memory_format=torch.channels_last)
    input.requires_grad_()
    rest = torch.tensor([index for index in range(shape[dim]) if index not in numbers])
    if zero:
        weight.index_fill_(dim, rest, 0.0)
        if dim == 0:
            bias[rest] = 0
    assert torch.equal(bank.full_weight(), weight)
    whole = (input, weight.requires_grad_(), bias.requires_grad_())
    expected = F.conv2d(*whole, *geometry)
    output = convolve(input, bank, geometry, ExecutionOptions())
    torch.testing.assert_close(output, expected)
    grad = torch.randn_like(expected)
    got = torch.autograd.grad(output, (input, bank.learned, bank.bias), grad)
    of_input, of_weight, of_bias = torch.autograd.grad(expected, whole, grad)
    torch.testing.assert_close(got[0], of_input)
    torch.testing.assert_close(got[1], of_weight[_slices(dim, numbers)])
    torch.testing.assert_close(got[2], of_bias[numbers] if dim == 0 else of_bias)


def _slices(dim: int, numbers: list[int]) -> tuple[slice | list[int], ...]:
    return (*(slice(None),) * dim, numbers)
