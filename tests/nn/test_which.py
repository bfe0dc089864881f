"""``MaskedConv2d(which=...)``: the layer against the plain convolution that it stands for."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskedconv import BNReLUConv2d, MaskedConv2d

WHICH = {0: [5, 1, 2], 1: [3, 1, 0], 2: [2], 3: [2, 0]}


def _plain() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(4, 6, 3, padding=1, dtype=torch.float64)


def _layer(plain: nn.Conv2d, dim: int, **settings: Any) -> MaskedConv2d:
    which = WHICH[dim]
    return MaskedConv2d.from_conv2d(
        plain, learned=len(which), slice_dim=dim, which=which, **settings
    )


def _input() -> Tensor:
    return torch.randn(2, 4, 7, 6, dtype=torch.float64)


@pytest.mark.parametrize("dim", WHICH)
def test_keeps_the_plain_values_and_learns_their_slices(dim: int) -> None:
    plain, input = _plain(), _input()
    layer = _layer(plain, dim)
    assert torch.equal(layer.weight, plain.weight)
    assert torch.equal(layer.bias, plain.bias)
    torch.testing.assert_close(layer(input), plain(input))
    layer(input).square().sum().backward()
    plain(input).square().sum().backward()
    indices = torch.tensor(sorted(WHICH[dim]))
    torch.testing.assert_close(layer.learned.grad, plain.weight.grad.index_select(dim, indices))
    bias = plain.bias.grad if dim else plain.bias.grad[indices]
    torch.testing.assert_close(layer.bias_learned.grad, bias)
    assert torch.equal(layer.to_conv2d().weight, plain.weight)


@pytest.mark.parametrize("dim", WHICH)
def test_zeroes_the_other_slices(dim: int) -> None:
    plain, input = _plain(), _input()
    layer = _layer(plain, dim, frozen="zero")
    expected = torch.zeros_like(plain.weight)
    indices = torch.tensor(WHICH[dim])
    expected.index_copy_(dim, indices, plain.weight.detach().index_select(dim, indices))
    assert torch.equal(layer.weight, expected)
    torch.testing.assert_close(layer(input), F.conv2d(input, expected, layer.bias, padding=1))


@pytest.mark.parametrize("dim", WHICH)
def test_survives_copies_and_state_dicts(dim: int) -> None:
    plain = _plain()
    layer = _layer(plain, dim)
    first = MaskedConv2d.from_conv2d(plain, learned=len(WHICH[dim]), slice_dim=dim)
    assert layer.state_dict().keys() == first.state_dict().keys()
    other = deepcopy(layer).to("meta").to_empty(device="cpu")
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.weight, plain.weight)
    with torch.no_grad():
        other.weight.zero_()
    assert not other.learned.any()
    other.load_state_dict(plain.state_dict())
    assert torch.equal(other.weight, plain.weight)


@pytest.mark.parametrize("dim", WHICH)
def test_runs_after_a_fused_norm(dim: int) -> None:
    layer, input = _layer(_plain(), dim), _input()
    norm = nn.BatchNorm2d(4, dtype=torch.float64)
    expected = layer(F.relu(deepcopy(norm)(input)))
    torch.testing.assert_close(BNReLUConv2d(norm, layer)(input), expected)


def test_the_first_indices_need_no_order() -> None:
    assert MaskedConv2d(4, 6, 3, learned=3, which=[2, 0, 1]).filter_bank.selected is None


@pytest.mark.parametrize(
    ("which", "error", "message"),
    [
        ("abc", TypeError, "which is 'abc'"),
        ([1.0, 2.0], TypeError, "list of ints"),
        ([1], ValueError, "which has 1 indices; expected the 2"),
        ([1, 1], ValueError, "different indices from 0 to 5"),
        ([1, 6], ValueError, "different indices from 0 to 5"),
        ([-1, 2], ValueError, "different indices from 0 to 5"),
    ],
)
def test_refuses_other_indices(which: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MaskedConv2d(4, 6, 3, learned=2, which=which)
