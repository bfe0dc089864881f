"""Supermasks in the tools for whole models."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from maskedconv import convert_, count_kept, count_parameters, merge_, methods, models
from maskedconv.nn import BipropConv2d, SupermaskConv2d, SupermaskLinear

METHODS = {"supermask": methods.supermask, "biprop": methods.biprop}


def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, groups=2, padding_mode="circular", padding=1, bias=False),
        nn.Flatten(),
        nn.Linear(64, 2, bias=False),
    )


@pytest.mark.parametrize("method", METHODS)
def test_conversion_and_merging(method):
    model = convert_(network(), method=METHODS[method](0.3), seed=0)
    again = convert_(network(), method=METHODS[method](0.3), seed=0)
    layers = [model[index] for index in (0, 2, 4)]
    assert {layer.method for layer in layers} == {method}
    weights = sum(layer.weight.numel() for layer in layers)
    counted = count_parameters(model)
    assert counted.learned == counted.total == weights
    kept = count_kept(model)
    assert kept.kept == sum(int((layer.weight != 0).sum()) for layer in layers)
    input = torch.randn(2, 3, 8, 8)
    output = model(input)
    assert torch.equal(again(input), output)
    merge_(model)
    assert [type(model[index]) for index in (0, 2, 4)] == [nn.Conv2d, nn.Conv2d, nn.Linear]
    torch.testing.assert_close(model(input), output)
    assert all(p.requires_grad for p in model.parameters())


def test_weights_are_kept():
    model = network()
    before = copy.deepcopy(model)
    convert_(model, method=methods.supermask(1.0, weights="keep"), include=("0", "4"))
    assert torch.equal(model[0].frozen, before[0].weight)
    assert type(model[2]) is nn.Conv2d
    torch.testing.assert_close(model(x := torch.randn(1, 3, 8, 8)), before(x))


def test_a_layer_with_a_bias_is_left_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, bias=False), nn.Linear(2, 2))
    with pytest.warns(UserWarning, match=r"left 2 of 3 layers alone: 0, 2: it has a bias, which"):
        convert_(model, method=methods.supermask())
    assert type(model[0]) is nn.Conv2d
    assert type(model[1]) is SupermaskConv2d
    with pytest.raises(ValueError, match="include has '2', but convert_ leaves alone 2: it has a"):
        convert_(model, method=methods.supermask(), include="2")


def test_settings_of_the_plain_layer_are_kept():
    model = network().double().eval().to(memory_format=torch.channels_last)
    model[0].weight.requires_grad_(False)
    convert_(model, method=methods.supermask())
    assert model[0].frozen.dtype is torch.float64
    assert model[0].scores.is_contiguous(memory_format=torch.channels_last)
    assert not model[0].scores.requires_grad
    assert model[2].scores.requires_grad
    assert not model[0].training


@pytest.mark.parametrize("name", ["wrn_10_1", "densenet_bc_16_12", "vgg19_bn", "alexnet"])
def test_every_layer_of_a_network_is_masked(name):
    model = models.create(name, method=methods.supermask(0.5), seed=0)
    kinds = {type(m) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert not kinds
    assert all(key.endswith("scores") for key, _ in model.named_parameters())
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_norms_may_be_learned():
    model = models.create("vgg_small", method=methods.biprop(norm_learned=True), width=0.05)
    learned = {key.rpartition(".")[2] for key, _ in model.named_parameters()}
    assert learned == {"scores", "weight", "bias"}
    assert type(model.fc) is not SupermaskLinear
    assert isinstance(model.features[0], BipropConv2d)


def test_binary_activations():
    model = models.create("vgg_small", width=0.05, activation="sign", image_size=8)
    seen = set()
    model.features[6].register_forward_hook(lambda *args: seen.update(args[2].unique().tolist()))
    model(torch.randn(4, 3, 8, 8)).sum().backward()
    assert seen <= {-1.0, 0.0, 1.0}
    assert model.features[0].learned.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="activation is 'tanh'; expected one of relu, sign"):
        models.create("vgg_small", activation="tanh")


def test_a_global_threshold_for_a_converted_model():
    model = convert_(network(), method=methods.supermask(0.3, threshold="global"))
    output = model(x := torch.randn(2, 3, 8, 8))
    total = sum(p.numel() for p in model.parameters())
    assert count_kept(model).kept == total - int(0.7 * total)
    torch.testing.assert_close(merge_(model)(x), output)
