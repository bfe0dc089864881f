"""A small network whose layers learn chosen slices."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from maskedconv import convert_


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 12, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
    ).double()  # fmt: skip


CONVOLUTIONS = ("0", "3", "4")


def converted(**arguments: Any) -> nn.Sequential:
    return convert_(network(), learned=0.25, rest="freeze", **arguments)


def chosen(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The learned indices of each layer."""
    layers = {name: model.get_submodule(name) for name in CONVOLUTIONS}
    return {name: one.which or tuple(range(one.num_learned)) for name, one in layers.items()}
