"""Weight initialisation: the papers' distributions, and a seed for a whole network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from maskedconv.nn.scored import ScoredLayer
from maskedconv.nn.supermask import SupermaskConv2d
from maskedconv.seeds import seed_of_32_bits


def he_normal_(network: nn.Module, mode: Literal["fan_in", "fan_out"] = "fan_out") -> None:
    """Draws every convolution of ``network`` from N(0, 2 / (kH kW O)); its bias becomes 0.

    This is He et al. 2015 (arXiv 1502.01852) in fan-out mode; in fan-in mode, the input channels
    take the place of O. Learned and frozen filters are drawn as one weight, so that the values do
    not depend on the number of learned filters.
    """
    for conv in network.modules():
        if isinstance(conv, nn.Conv2d | SupermaskConv2d):
            channels = conv.in_channels if mode == "fan_in" else conv.out_channels
            std = math.sqrt(2 / (math.prod(conv.kernel_size) * channels))
            draw_weight_(conv, partial(nn.init.normal_, mean=0.0, std=std))
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)


def uniform_gamma_(network: nn.Module) -> None:
    """Draws γ of every BatchNorm of ``network`` uniformly from [0, 1]."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.uniform_(module.weight)


def draw_weight_(layer: nn.Module, draw: Callable[[Tensor], object]) -> None:
    """Initialises the weight of ``layer`` by ``draw``, which fills a tensor in place.

    In a supermask it is the frozen weight, and only if its distribution is "network".
    """
    if isinstance(layer, ScoredLayer):
        layer.draw_frozen_(draw)
    else:
        draw(layer.weight)  # type: ignore[arg-type]


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
            torch.default_generator.manual_seed(seed_of_32_bits(seed))
            yield
