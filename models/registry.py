"""The names of the networks, and which class each one stands for. Free of torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_NUMBER = r"[1-9][0-9]*"


@dataclass(frozen=True)
class Family:
    """Networks that one class builds.

    Attributes:
        form: how the names look, for messages.
        pattern: regular expression of the names; its groups are arguments of the class.
        module, network: where the class is, below ``maskedconv.models``.
        published: names of networks in the paper and in related ones.
        depth_step, depth_offset: a group ``depth`` becomes the argument ``blocks`` by
            depth = depth_step * blocks + depth_offset.
        fixed: further arguments of the class.
        recipe: name of the Recipe in the module.
        authors_split: how split convolutions begin under ``init="authors"``, "he" or "default".
    """

    form: str
    pattern: str
    module: str
    network: str
    published: tuple[str, ...]
    depth_step: int = 1
    depth_offset: int = 0
    fixed: Mapping[str, bool] = field(default_factory=dict)
    recipe: str = "RECIPE"
    authors_split: str = "he"


FAMILIES = (
    # Before its family: it alone has dropout in its recipe.
    Family(
        "wrn_28_10", r"wrn_(?P<depth>28)_(?P<widen_factor>10)",
        "wrn", "WideResNet", ("wrn_28_10",), 6, 4, recipe="RECIPE_28_10",
        authors_split="default",
    ),
    Family(
        "wrn_D_W with D = 6n + 4", rf"wrn_(?P<depth>{_NUMBER})_(?P<widen_factor>{_NUMBER})",
        "wrn", "WideResNet", ("wrn_28_4",), 6, 4, authors_split="default",
    ),
    Family(
        "densenet_bc_L_K with L = 6n + 4",
        rf"densenet_bc_(?P<depth>{_NUMBER})_(?P<growth_rate>{_NUMBER})",
        "densenet", "DenseNetBC", ("densenet_bc_100_12",), 6, 4,
    ),
    Family(
        "resnet_D with D = 6n + 2", rf"resnet_(?P<depth>{_NUMBER})",
        "resnet", "ResNet", ("resnet_14",), 6, 2,
    ),
    Family(
        "imagenet_resnet_18, 34, 50, 101, 152 or 200",
        "imagenet_resnet_(?P<layers>18|34|50|101|152|200)",
        "imagenet_resnet", "ImageNetResNet", ("imagenet_resnet_50",),
    ),
    Family("resnet18", "resnet18", "resnet18", "ResNet18", ("resnet18",)),
    Family("fc_300_100", "fc_300_100", "fully_connected", "LeNet300", ("fc_300_100",)),
    Family("vgg_small", "vgg_small", "vgg_small", "VGGSmall", ("vgg_small",)),
    Family("alexnet", "alexnet", "alexnet", "AlexNet", ("alexnet",)),
    Family(
        "vgg19", "vgg19", "vgg", "VGG19", ("vgg19",), fixed={"batch_norm": False},
        authors_split="default",
    ),
    Family(
        "vgg19_bn", "vgg19_bn", "vgg", "VGG19", ("vgg19_bn",), fixed={"batch_norm": True},
        authors_split="default",
    ),
    Family(
        "transformer_B_D with D a multiple of 16",
        rf"transformer_(?P<blocks>{_NUMBER})_(?P<dim>{_NUMBER})",
        "transformer", "Transformer", (),
    ),
    Family(
        "conv2, conv4, conv6, conv8", "conv(?P<depth>[2468])",
        "conv", "ConvNet", ("conv2", "conv4", "conv6", "conv8"), 2, 0,
    ),
)  # fmt: skip

NAMES = tuple(name for family in FAMILIES for name in family.published)


def parse(name: str) -> tuple[Family, dict[str, int | bool]]:
    """The family of ``name`` and the arguments of its class that the name stands for.

    Raises:
        TypeError: ``name`` is not a str.
        ValueError: there is no such network; the message lists those that exist.
    """
    if not isinstance(name, str):
        raise TypeError(f"name is {name!r} ({type(name).__name__}); expected a str")
    for family in FAMILIES:
        match = re.fullmatch(family.pattern, name)
        if match is None:
            continue
        arguments: dict[str, int | bool] = {
            group: int(number) for group, number in match.groupdict().items()
        }
        if "depth" in arguments:
            blocks, rest = divmod(arguments.pop("depth") - family.depth_offset, family.depth_step)
            if rest or blocks < 1:
                raise ValueError(f"name is {name!r}; expected {family.form}, n >= 1")
            arguments["blocks"] = blocks
        return family, {**arguments, **family.fixed}
    forms = "; ".join(family.form for family in FAMILIES)
    raise ValueError(f"name is {name!r}, which is no network; expected one of: {forms}")
