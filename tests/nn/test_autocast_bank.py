"""Under autocast, a layer uses its current filters, however they were changed."""

from __future__ import annotations

import copy

import pytest
import torch
from precision import assert_as_exact
from torch import nn
from torch.nn import functional as F

import maskedconv
from maskedconv.nn import BNReLUConv2d

x = torch.randn(2, 4, 6, 6)


def layer_of(slice_dim=0):
    return maskedconv.MaskedConv2d(4, 6, 3, learned=2, slice_dim=slice_dim, seed=0)


def run(layer, input=x):
    with torch.autocast("cpu", torch.bfloat16):
        return layer(input)


def expected(layer, input=x):
    with torch.autocast("cpu", torch.bfloat16):
        return layer.to_conv2d()(input)


def change_in_place(layer):
    with torch.no_grad():
        layer.frozen.mul_(2)


def replace(layer):
    layer.frozen = torch.randn_like(layer.frozen)


def load_other(layer):
    layer.load_state_dict(maskedconv.MaskedConv2d(4, 6, 3, learned=2, seed=1).state_dict())


def other_format(layer):
    layer.to(memory_format=torch.channels_last)


def zero_data(layer):
    layer.frozen.data.zero_()


def replace_data(layer):
    layer.frozen.data = torch.randn_like(layer.frozen)


def write_by_numpy(layer):
    layer.frozen.numpy().fill(0.5)


def zero_learned_data(layer):
    layer.learned.data.zero_()


CHANGES = [
    change_in_place, replace, load_other, other_format, zero_data, replace_data, write_by_numpy,
    zero_learned_data,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_filters_is_followed(change):
    layer = layer_of()
    before = run(layer)
    change(layer)
    after = run(layer)
    assert torch.equal(after, expected(layer))
    assert change is other_format or not torch.equal(after, before)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_within_one_region_is_followed(change):
    layer = layer_of()
    with torch.autocast("cpu", torch.bfloat16):
        layer(x)
        change(layer)
        assert torch.equal(layer(x), layer.to_conv2d()(x))


@pytest.mark.parametrize("change", CHANGES)
def test_fused_with_batch_norm(change):
    layer = BNReLUConv2d(nn.BatchNorm2d(4), layer_of())
    run(layer)
    change(layer.conv)
    bn, conv = copy.deepcopy(layer.bn), layer.conv.to_conv2d()
    exact = copy.deepcopy(conv).double()(F.relu(copy.deepcopy(bn).double()(x.double())))
    with torch.autocast("cpu", torch.bfloat16):
        plain = conv(F.relu(bn(x)))
    assert_as_exact([run(layer)], [plain], [exact], dtype=torch.bfloat16)


@pytest.mark.parametrize("slice_dim", range(4))
def test_training_follows_the_learned_filters(slice_dim):
    layer = layer_of(slice_dim)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(3):
        output = run(layer)
        assert torch.equal(output, expected(layer))
        optimizer.zero_grad()
        output.float().square().sum().backward()
        optimizer.step()


def test_filters_changed_before_backward_count_as_they_were():
    """nn.Conv2d does the same, as autocast saves the cast copy."""
    grads = []
    for layer in (layer_of(), layer_of().to_conv2d()):
        input = x.clone().requires_grad_()
        output = run(layer, input)
        with torch.no_grad():
            next(layer.parameters()).add_(1)
        output.float().sum().backward()
        grads.append(input.grad)
    assert torch.equal(*grads)


def test_inference_mode_before_training():
    layer = layer_of()
    with torch.inference_mode():
        run(layer)
    run(layer, x.clone().requires_grad_()).float().sum().backward()
    assert layer.learned.grad is not None
