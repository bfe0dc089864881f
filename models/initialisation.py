"""Weight initialisation: the papers' distributions, and a seed for a whole network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn


def he_normal_(network: nn.Module, mode: Literal["fan_in", "fan_out"] = "fan_out") -> None:
    """Draws every convolution of ``network`` from N(0, 2 / (kH kW O)); its bias becomes 0.

    This is He et al. 2015 (arXiv 1502.01852) in fan-out mode; in fan-in mode, the input channels
    take the place of O. Learned and frozen filters are drawn as one weight, so that the values do
    not depend on the number of learned filters.
    """
    for conv in network.modules():
        if isinstance(conv, nn.Conv2d):
            channels = conv.in_channels if mode == "fan_in" else conv.out_channels
            fan = math.prod(conv.kernel_size) * channels
            nn.init.normal_(conv.weight, 0.0, math.sqrt(2 / fan))
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)


@contextmanager
def drawn_on_cpu(seed: int | None) -> Iterator[None]:
    """Context manager that draws new modules on the CPU, or nothing if the device is meta.

    With a ``seed``, the values depend on it alone, and torch's own generator does not change.
    """
    meta = torch.get_default_device().type == "meta"
    with torch.device("meta" if meta else "cpu"):
        if seed is None:
            yield
            return
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            yield
