"""Networks of timm and torchvision at random weights, small enough to convert all of them."""

from __future__ import annotations

import functools
from collections.abc import Callable

import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import segmentation
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

# The convolutions that conversion skips: the name of their class and their number.
SUBCLASSES = {
    "nf_resnet26": ("ScaledStdConv2d", 29),
    "resnetv2_50x1_bit": ("StdConv2d", 53),
    "tf_efficientnet_b0": ("Conv2dSame", 5),
    "tf_mixnet_s": ("Conv2dSame", 13),
}
TIMM = (
    *SUBCLASSES, "resnet26d", "mobilenetv3_small_050", "mobilenetv4_conv_small", "ghostnet_100",
    "lcnet_050", "regnetx_002", "convnext_atto", "vit_tiny_patch16_224", "mobilevit_xxs",
    "repvgg_a0", "skresnet18", "dla46_c", "hrnet_w18_small", "edgenext_xx_small", "poolformer_s12",
    "efficientvit_b0", "levit_128s", "resnest14d", "xcit_nano_12_p16_224", "resnet18d",
)  # fmt: skip
TORCHVISION = (
    "resnet18", "mobilenet_v2", "mobilenet_v3_small", "densenet121", "regnet_y_400mf",
    "shufflenet_v2_x0_5", "squeezenet1_1", "mnasnet0_5", "efficientnet_b0", "convnext_tiny",
    "resnext50_32x4d",
)  # fmt: skip
_OF_FIXED_SIZE = ("vit_tiny_patch16_224", "levit_128s", "xcit_nano_12_p16_224")
_SHAPES = {"inception_v3": (1, 3, 75, 75), "mask_head": (1, 16, 8, 8)}


def _mask_head() -> nn.Module:
    """Mask R-CNN's head, [N, 16, H, W] to [N, 3, 2 H, 2 W], with an nn.ConvTranspose2d."""
    return nn.Sequential(MaskRCNNHeads(16, (16, 16), 1), MaskRCNNPredictor(16, 16, 3))


def _without_auxiliary(build: Callable[..., nn.Module]) -> nn.Module:
    return build(weights=None, init_weights=False, aux_logits=False)


def _vgg_features() -> nn.Module:
    """VGG without its 120 million fully connected weights."""
    layers = torchvision.models.vgg.cfgs["A"]
    return torchvision.models.vgg.make_layers(layers, batch_norm=True)


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    **{
        name: functools.partial(
            timm.create_model, name, **({"img_size": 64} if name in _OF_FIXED_SIZE else {})
        )
        for name in TIMM
    },
    **{name: functools.partial(torchvision.models.get_model, name) for name in TORCHVISION},
    "googlenet": functools.partial(_without_auxiliary, torchvision.models.googlenet),
    "inception_v3": functools.partial(_without_auxiliary, torchvision.models.inception_v3),
    "vgg11_bn": _vgg_features,
    "lraspp": functools.partial(
        segmentation.lraspp_mobilenet_v3_large, weights=None, weights_backbone=None
    ),
    "mask_head": _mask_head,
}


def build(name: str) -> nn.Module:
    """The network in eval mode; no scale is 0 or 1, so that every branch affects the output."""
    torch.manual_seed(0)
    model = BUILDERS[name]().eval()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.dim() == 1 and tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return model


def example(name: str) -> Tensor:
    """A random input of the network, mostly [1, 3, 64, 64]."""
    return torch.randn(_SHAPES.get(name, (1, 3, 64, 64)))


def output(model: nn.Module, x: Tensor) -> Tensor:
    """The network's only or main output, with its graph."""
    y = model(x)
    return y["out"] if isinstance(y, dict) else y
