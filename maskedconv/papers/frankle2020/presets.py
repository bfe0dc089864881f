"""The presets of the experiments: quick, short, and paper. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from maskedconv.runs.preset import Network, Preset, Request

EXPERIMENT = "bnonly"


@dataclass(frozen=True, kw_only=True)
class FranklePreset(Preset):
    """The networks of the paper's CIFAR-10 experiments, or smaller ones.

    Attributes:
        depths: depths of the ResNets, in ascending order.
        wide_depth: depth of the ResNets of several widths, one of ``depths``.
        widths: factors of their width besides 1.
    """

    depths: tuple[int, ...]
    wide_depth: int
    widths: tuple[int, ...]

    @property
    def networks(self) -> tuple[Network, ...]:
        """Every network once: by depth, then by width."""
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


def adapt(preset: FranklePreset, request: Request) -> FranklePreset:
    """``preset`` with the options of the command line."""
    chosen = replace(preset, seeds=request.seeds, amp=request.amp, compile=request.compile)
    if request.dataset is not None:
        chosen = replace(chosen, datasets=(request.dataset,))
    if request.subset is not None:
        chosen = replace(chosen, subset=request.subset)
    if request.epochs is not None:
        chosen = replace(chosen, epochs=MappingProxyType({EXPERIMENT: request.epochs}))
    return chosen
