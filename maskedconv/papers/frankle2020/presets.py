"""The presets of the experiments: quick, short, and paper. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from maskedconv.runs.preset import Network, Preset

EXPERIMENT = "bnonly"
# Data sets of photographs, on which the networks are the ImageNet ResNets.
PHOTOGRAPHS = ("imagenet", "photos")


@dataclass(frozen=True, kw_only=True)
class FranklePreset(Preset):
    """The networks of the paper's CIFAR-10 experiments, or smaller ones.

    Attributes:
        depths: depths of the ResNets, in ascending order.
        wide_depth: depth of the ResNets of several widths, one of ``depths``.
        widths: factors of their width besides 1.
        imagenet_depths: depths of the ImageNet ResNets, which take their place on photographs.
    """

    depths: tuple[int, ...]
    wide_depth: int
    widths: tuple[int, ...]
    imagenet_depths: tuple[int, ...] = (18, 34, 50, 101, 200)

    @property
    def networks(self) -> tuple[Network, ...]:
        """Every network once: by depth, then by width."""
        if set(self.datasets) <= set(PHOTOGRAPHS):
            return tuple(Network(f"imagenet_resnet_{depth}") for depth in self.imagenet_depths)
        deep = (Network(f"resnet_{depth}") for depth in self.depths)
        name = f"resnet_{self.wide_depth}"
        wide = (Network(name, options=(("width", width),)) for width in self.widths)
        return *deep, *wide


_PAPER = FranklePreset(
    name="paper",
    datasets=("cifar10",),
    depths=(14, 32, 56, 110, 218, 434, 866),
    wide_depth=14,
    widths=(2, 4, 8, 16),
)
_SHORT = replace(
    _PAPER,
    name="short",
    depths=(14, 32, 56),
    widths=(2, 4),
    # A tenth of CIFAR-10.
    subset=500,
    epochs=MappingProxyType({EXPERIMENT: 16}),
)
_QUICK = FranklePreset(
    name="quick",
    datasets=("digits",),
    depths=(8, 14, 20),
    wide_depth=8,
    widths=(2,),
    epochs=MappingProxyType({EXPERIMENT: 10}),
    batch_size=64,
    threads=1,
)
PRESETS: Mapping[str, FranklePreset] = MappingProxyType(
    {preset.name: preset for preset in (_QUICK, _SHORT, _PAPER)}
)
