"""Networks small enough for quick tests, and their values by name."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from maskedconv import models

SMALL = ("wrn_10_1", "densenet_bc_16_12", "resnet_8", "alexnet", "vgg19", "vgg19_bn", "conv4")


def parameters_by_name(model: nn.Module) -> dict[str, Tensor]:
    """All filters and biases, BatchNorm and fully connected parameters."""
    values = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            values[f"{name}.weight"] = module.weight.detach().clone()
            if module.bias is not None:
                values[f"{name}.bias"] = module.bias.detach().clone()
    return values


def small(name: str, **options: Any) -> nn.Module:
    """A network of ``SMALL``, narrow where it has that option."""
    if name in ("alexnet", "vgg19", "vgg19_bn", "conv4"):
        options.setdefault("width", 0.125)
    return models.create(name, **options)
