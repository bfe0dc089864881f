"""Published networks: conversion changes no bit of their output, and merging restores them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models import segmentation
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from maskedconv import MaskedConv2d, conversion_report, convert_, merge_

# The skipped convolutions: the name of their class and their number.
LEFT_ALONE = {
    "nf_resnet26": ("ScaledStdConv2d", 29),
    "resnetv2_50x1_bit": ("StdConv2d", 53),
    "tf_efficientnet_b0": ("Conv2dSame", 5),
    "tf_mixnet_s": ("Conv2dSame", 13),
}
TIMM = (
    *LEFT_ALONE, "resnet26d", "mobilenetv3_small_050", "mobilenetv4_conv_small", "ghostnet_100",
    "lcnet_050", "regnetx_002", "convnext_atto", "vit_tiny_patch16_224", "mobilevit_xxs",
    "repvgg_a0", "skresnet18", "dla46_c", "hrnet_w18_small", "edgenext_xx_small", "poolformer_s12",
    "efficientvit_b0", "levit_128s", "resnest14d", "xcit_nano_12_p16_224",
)  # fmt: skip
OF_FIXED_SIZE = ("vit_tiny_patch16_224", "levit_128s", "xcit_nano_12_p16_224")


def mask_head() -> nn.Module:
    """Mask R-CNN's head, [N, 16, H, W] to [N, 3, 2 H, 2 W], with an nn.ConvTranspose2d."""
    return nn.Sequential(MaskRCNNHeads(16, (16, 16), 1), MaskRCNNPredictor(16, 16, 3))


def without_auxiliary(build: Callable[..., nn.Module]) -> nn.Module:
    return build(weights=None, init_weights=False, aux_logits=False)


def vgg_features() -> nn.Module:
    """VGG without its 120 million fully connected weights."""
    layers = torchvision.models.vgg.cfgs["A"]
    return torchvision.models.vgg.make_layers(layers, batch_norm=True)


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    **{
        name: functools.partial(
            timm.create_model, name, **({"img_size": 64} if name in OF_FIXED_SIZE else {})
        )
        for name in TIMM
    },
    **{
        name: functools.partial(torchvision.models.get_model, name)
        for name in (
            "resnet18", "mobilenet_v2", "mobilenet_v3_small", "densenet121", "regnet_y_400mf",
            "shufflenet_v2_x0_5", "squeezenet1_1", "mnasnet0_5", "efficientnet_b0", "convnext_tiny",
        )
    },
    "googlenet": functools.partial(without_auxiliary, torchvision.models.googlenet),
    "inception_v3": functools.partial(without_auxiliary, torchvision.models.inception_v3),
    "vgg11_bn": vgg_features,
    "lraspp": functools.partial(
        segmentation.lraspp_mobilenet_v3_large, weights=None, weights_backbone=None
    ),
    "mask_head": mask_head,
}  # fmt: skip
SHAPES = {"inception_v3": (1, 3, 75, 75), "mask_head": (1, 16, 8, 8)}


def build(name: str) -> nn.Module:
    """The network in eval mode; no scale is 0 or 1, so that every branch affects the output."""
    torch.manual_seed(0)
    model = BUILDERS[name]().eval()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.dim() == 1 and tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return model


def output(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y = model(x)
    return y["out"] if isinstance(y, dict) else y


def convert(model: nn.Module, slice_dim: int) -> str:
    """Converts the model; returns the warning or error that names skipped layers."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            convert_(model, learned=2 if slice_dim else 0.5, slice_dim=slice_dim, rest="learn")
        except ValueError as error:
            return str(error)
    return " ".join(str(warning.message) for warning in caught)


@pytest.mark.parametrize("name", BUILDERS)
def test_output_is_the_same_to_the_bit(name):
    model, x = build(name), torch.randn(SHAPES.get(name, (1, 3, 64, 64)))
    types = {n: type(m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    expected = output(model, x)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    said = convert(model, slice_dim=list(BUILDERS).index(name) % 4)

    kind, count = LEFT_ALONE.get(name, ("", 0))
    report = conversion_report(model)
    assert len(report.left_alone) == count
    assert set(report.converted) | set(report.left_alone) == set(types)
    for layer, reason in report.left_alone.items():
        assert types[layer].__name__ == kind
        assert reason == f"a subclass of Conv2d: {kind}"
    assert (f"a subclass of Conv2d: {kind}" in said) if count else not said
    for layer in report.converted:
        assert types[layer] is nn.Conv2d
        assert type(model.get_submodule(layer)) is MaskedConv2d
    assert expected.isfinite().all()
    assert torch.equal(output(model, x), expected)

    merged = merge_(model).state_dict()
    assert list(merged) == list(state)
    assert all(torch.equal(merged[key], value) for key, value in state.items())
    assert all(type(model.get_submodule(layer)) is kind for layer, kind in types.items())
    assert torch.equal(output(model, x), expected)
