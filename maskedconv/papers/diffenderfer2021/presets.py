"""The presets of the experiment: quick, short, and paper. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from maskedconv.runs.preset import Network, Preset


@dataclass(frozen=True, kw_only=True)
class BipropPreset(Preset):
    """The networks and kept fractions of the experiment, or smaller ones.

    Attributes:
        networks: networks with ReLU activations.
        fractions: the kept fractions k.
        compared: the kept fraction of the global threshold, of learned BatchNorm, and of the other
            method (edge-popup).
        binary: networks with binary activations.
        binary_fraction: their kept fraction.
        binary_lrs: learning rates of Adam for networks with binary activations, by network.
    """

    networks: tuple[Network, ...]
    fractions: tuple[float, ...]
    compared: float
    binary: tuple[Network, ...]
    binary_fraction: float
    binary_lrs: Mapping[str, float]


ITEM_ID = "biprop"
_SIGN = ("activation", "sign")
_PAPER = BipropPreset(
    name="paper",
    datasets=("cifar10",),
    networks=(Network("vgg_small"), Network("resnet18")),
    fractions=(0.05, 0.2, 0.5, 0.8),
    compared=0.2,
    binary=(
        Network("vgg_small", (), (_SIGN, ("width", 1.25))),
        Network("resnet18", (), (_SIGN,)),
    ),
    binary_fraction=0.25,
    binary_lrs=MappingProxyType({"vgg_small": 2e-4, "resnet18": 0.1}),
)
_SHORT = replace(
    _PAPER,
    name="short",
    networks=(Network("vgg_small"),),
    binary=_PAPER.binary[:1],
    subset=500,
    epochs=MappingProxyType({ITEM_ID: 10}),
)
_EIGHTH = ("width", 0.125)
_QUICK = replace(
    _SHORT,
    name="quick",
    datasets=("digits",),
    networks=(Network("vgg_small", (), (_EIGHTH,)),),
    fractions=(0.05, 0.2, 0.5, 0.8),
    binary=(Network("vgg_small", (), (_SIGN, _EIGHTH)),),
    # The short runs of the small network need larger steps.
    binary_lrs=MappingProxyType({"vgg_small": 0.01}),
    subset=None,
    batch_size=64,
    epochs=MappingProxyType({ITEM_ID: 12}),
    # Such small layers gain nothing from a second thread.
    threads=1,
)
PRESETS: Mapping[str, BipropPreset] = MappingProxyType(
    {preset.name: preset for preset in (_QUICK, _SHORT, _PAPER)}
)
