"""bn_relu_conv against BatchNorm2d, ReLU and the convolution as three modules."""

from __future__ import annotations

import copy

import pytest
import torch
from bn_relu_layers import (
    FORMATS,
    GEOMETRIES,
    MODES,
    NORMS,
    compare,
    images,
    layer_of,
    norm_of,
    three_modules,
)
from torch.nn import functional as F

from maskedconv.nn import BNReLUConv2d, MaskedConv2d, bn_relu, bn_relu_convs


@pytest.mark.parametrize(("slice_dim", "frozen"), MODES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_equals_the_three_modules(geometry, slice_dim, frozen):
    layer = layer_of(slice_dim=slice_dim, frozen=frozen, **GEOMETRIES[geometry])
    compare(layer, images(2, 6, 9, 13), steps=1)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("norm", NORMS)
def test_every_kind_of_batch_norm(norm, memory_format, training):
    layer = layer_of(norm=NORMS[norm]).to(memory_format=memory_format).train(training)
    compare(layer, images(3, 6, 7, 5, memory_format=memory_format), steps=3)


@pytest.mark.parametrize("learned", ["none", "weight", "bias"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_frozen_affine_and_frozen_filters(learned, training):
    layer = layer_of().train(training)
    layer.bn.weight.requires_grad_(learned == "weight")
    layer.bn.bias.requires_grad_(learned == "bias")
    compare(layer, images(3, 6, 7, 5))
    layer.conv.requires_grad_(False)
    compare(layer, images(3, 6, 7, 5))


@pytest.mark.parametrize("needs", ["input", "norm", "filters"])
def test_gradients_that_are_asked_for_alone(needs):
    layer, x = layer_of(), images(3, 6, 7, 5)
    whole_x = x.clone().requires_grad_()
    out = layer(whole_x)
    wanted = [whole_x, layer.bn.weight, layer.bn.bias, layer.conv.learned]
    whole = torch.autograd.grad(out.square().sum(), wanted)
    layer.bn.requires_grad_(needs == "norm")
    layer.conv.requires_grad_(needs == "filters")
    x.requires_grad_(needs == "input")
    wanted = [t for t in (x, layer.bn.weight, layer.bn.bias, layer.conv.learned) if t.requires_grad]
    alone = torch.autograd.grad(layer(x).square().sum(), wanted)
    chosen = {"input": whole[:1], "norm": whole[1:3], "filters": whole[3:]}[needs]
    torch.testing.assert_close(alone, chosen)


@pytest.mark.parametrize("learned", [0, 1, 5, 1.0])
@pytest.mark.parametrize(("slice_dim", "frozen"), MODES)
def test_from_nothing_to_all_learned(learned, slice_dim, frozen):
    size = 3 if slice_dim >= 2 else 6
    learned = learned if isinstance(learned, float) else min(learned, size)
    layer = layer_of(learned, slice_dim, frozen)
    compare(layer, images(3, 6, 5, 7), steps=1)


@pytest.mark.parametrize(("slice_dim", "frozen"), MODES)
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_memory_formats_and_views(slice_dim, frozen, memory_format):
    layer = layer_of(slice_dim=slice_dim, frozen=frozen).to(memory_format=memory_format)
    x = images(2, 6, 9, 8, memory_format=memory_format)
    compare(layer, x, steps=1)
    assert layer(x).stride() == three_modules(layer, x).stride()
    wide = images(2, 10, 9, 16, memory_format=memory_format)
    compare(layer, wide[:, :6], steps=1)
    compare(layer, wide[:, 2:8, ::2, 1::3], steps=1)


@pytest.mark.parametrize("kind", ["random", "zero", "plain"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("slice_dim", range(4))
def test_gradcheck(slice_dim, training, kind):
    frozen = "zero" if kind == "zero" else "random"
    conv = MaskedConv2d(
        3, 4, 3, stride=2, padding=1, learned=2, slice_dim=slice_dim, frozen=frozen,
        dtype=torch.float64,
    )  # fmt: skip
    layer = BNReLUConv2d(norm_of(3), conv.to_conv2d() if kind == "plain" else conv).train(training)
    x = images(2, 3, 5, 4).requires_grad_()
    torch.autograd.gradcheck(lambda x, *_: layer(x), (x, *layer.parameters()))


@pytest.mark.parametrize(("slice_dim", "frozen"), MODES)
def test_two_convolutions_of_one_activation(slice_dim, frozen):
    options = {"learned": 0.5, "slice_dim": slice_dim, "frozen": frozen, "dtype": torch.float64}
    bn = norm_of()
    convs = [
        MaskedConv2d(6, 8, 4, stride=2, padding=1, **options),
        MaskedConv2d(6, 8, 2, stride=2, bias=False, **options),
    ]
    plain_bn, *plain_convs = copy.deepcopy([bn, *convs])
    x = images(2, 6, 8, 8)
    own, plain_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    first, second = bn_relu_convs(own, bn, convs)
    (first.sin() * second).sum().backward()
    activation = F.relu(plain_bn(plain_x))
    (plain_convs[0](activation).sin() * plain_convs[1](activation)).sum().backward()
    torch.testing.assert_close(own.grad, plain_x.grad)
    for ours, theirs in zip((bn, *convs), (plain_bn, *plain_convs), strict=True):
        for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, msg=name)
    assert bn.num_batches_tracked == 1
    torch.testing.assert_close(bn.running_var, plain_bn.running_var)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_bn_relu_alone(training):
    bn = norm_of().train(training)
    plain, x = copy.deepcopy(bn), images(2, 6, 5, 5)
    own, plain_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    bn_relu(own, bn).square().sum().backward()
    F.relu(plain(plain_x)).square().sum().backward()
    torch.testing.assert_close(own.grad, plain_x.grad)
    torch.testing.assert_close(bn.weight.grad, plain.weight.grad)
    torch.testing.assert_close(bn.bias.grad, plain.bias.grad)
