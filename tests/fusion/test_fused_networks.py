"""Networks of timm, torchvision and this package keep less when fused, and compute the same."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torchvision
from fused_passes import assert_same, run_pass
from small_networks import small
from torch import nn

from maskedconv import (
    convert_,
    count_parameters,
    fuse_,
    load,
    merge_,
    methods,
    models,
    save,
    unfuse_,
)

# Largest share of the plain network's kept bytes. The bytes do not vary: the counted share + .02.
NETWORKS = {
    "torchvision resnet18": (torchvision.models.resnet18, 0.61),
    "torchvision resnet50": (torchvision.models.resnet50, 0.66),
    "timm resnet50": (lambda: timm.create_model("resnet50"), 0.66),
    "torchvision densenet121": (torchvision.models.densenet121, 0.275),
    "timm densenet121": (lambda: timm.create_model("densenet121"), 0.275),
    "torchvision mobilenet_v2": (torchvision.models.mobilenet_v2, 0.38),
    "timm efficientnet_b0": (lambda: timm.create_model("efficientnet_b0"), 0.35),
    "timm convnext_atto": (lambda: timm.create_model("convnext_atto"), 0.535),
    "timm vit_tiny": (lambda: timm.create_model("vit_tiny_patch16_224", img_size=64), 0.66),
}
METHODS = {
    "slice": methods.slice(0.25),
    "slice of input channels": methods.slice(0.25, slice_dim=1),
    "largest slice": methods.slice(0.25, which="largest"),
    "zero": methods.slice(0.25, frozen="zero"),
    "norm_only": methods.norm_only(),
    "random_positions": methods.random_positions(500),
    "supermask": methods.supermask(),
    "biprop": methods.biprop(),
}


def densenet():
    return torchvision.models.DenseNet(8, (3, 2), 8, num_classes=5).double()


def resnet():
    block = torchvision.models.resnet.Bottleneck
    return torchvision.models.ResNet(block, [1, 1, 1, 1], num_classes=5, width_per_group=8).double()


@pytest.mark.parametrize("name", NETWORKS)
def test_keeps_less(name):
    create, share = NETWORKS[name]
    model, images = create(), torch.randn(2, 3, 64, 64)
    plain = run_pass(model, images)
    report = fuse_(model, images)
    fused = run_pass(model, images)
    assert_same(fused, plain)
    assert fused.kept <= share * plain.kept
    # The images of this pass require a gradient, and so the first convolution keeps its weight.
    assert abs(report.kept_after - fused.kept) < 0.02 * fused.kept
    assert abs(report.kept_before - plain.kept) < 0.02 * plain.kept
    assert not report.left_alone


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("create", [resnet, densenet])
def test_same_in_double_precision(create, training):
    model, images = create().train(training), torch.randn(3, 3, 40, 40).double()
    plain = run_pass(model, images)
    fuse_(model, images)
    assert model.training == training
    assert_same(run_pass(model, images), plain)
    # The size differs from the one that the model was verified with.
    wide = torch.randn(2, 3, 33, 48).double().to(memory_format=torch.channels_last)
    fused = run_pass(model, wide)
    assert_same(fused, run_pass(unfused_copy(model), wide))


def unfused_copy(model: nn.Module) -> nn.Module:
    return unfuse_(copy.deepcopy(model))


@pytest.mark.parametrize("order", ["convert first", "fuse first"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method(method, order):
    model, images = densenet(), torch.randn(2, 3, 40, 40).double()
    if order == "fuse first":
        fuse_(model, images)
    convert_(model, method=METHODS[method], seed=0)
    plain = run_pass(unfused_copy(model), images)
    if order == "convert first":
        fuse_(model, images)
    fused = run_pass(model, images)
    assert_same(fused, plain)
    assert fused.kept <= 0.56 * plain.kept  # most with a slice of input channels: .544


@pytest.mark.parametrize("method", METHODS)
def test_frozen_bits_stay(method):
    model, images = convert_(resnet(), method=METHODS[method], seed=0), torch.randn(2, 3, 40, 40)
    fuse_(model, images.double())
    running = ("running_mean", "running_var", "num_batches_tracked")
    frozen = {
        name: (buffer, buffer.clone(), buffer._version)
        for name, buffer in model.named_buffers()
        if not name.endswith(running)
    }
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    # Not run_pass, which restores the buffers.
    model(images.double()).square().sum().backward()
    optimizer.step()
    for name, (buffer, value, version) in frozen.items():
        assert model.get_buffer(name) is buffer, name
        assert torch.equal(buffer, value), name
        assert buffer._version == version, name


def test_keys_and_checkpoints(tmp_path):
    model, images = convert_(resnet(), learned=0.25, seed=0), torch.randn(2, 3, 40, 40).double()
    keys, counted = list(model.state_dict()), count_parameters(model)
    fuse_(model, images)
    assert list(model.state_dict()) == keys
    assert count_parameters(model) == counted
    save(model, tmp_path / "model.safetensors", frozen=True)
    plain = convert_(resnet(), learned=0.25, seed=0)
    load(plain, tmp_path / "model.safetensors")
    assert_same(run_pass(model, images), run_pass(plain, images))
    plain.load_state_dict(model.state_dict())
    model.load_state_dict(plain.state_dict())
    assert_same(run_pass(merge_(model), images), run_pass(merge_(plain), images))


def test_own_network_keeps_no_more():
    model, images = models.create("wrn_10_1", learned=0.25, seed=0), torch.randn(2, 3, 32, 32)
    plain = run_pass(model, images)
    with pytest.warns(UserWarning, match="fuse_ left alone the model: nothing that it keeps"):
        report = fuse_(model, images)
    assert report.kept_after == report.kept_before
    fused = run_pass(model, images)
    assert_same(fused, plain)
    assert fused.kept == plain.kept


@pytest.mark.parametrize("name", ["resnet_8", "vgg19_bn"])
def test_networks_of_the_package(name):
    model, images = small(name, learned=0.25, seed=0), torch.randn(2, 3, 32, 32)
    plain = run_pass(model, images)
    fuse_(model, images)
    fused = run_pass(model, images)
    assert_same(fused, plain)
    assert fused.kept <= plain.kept
