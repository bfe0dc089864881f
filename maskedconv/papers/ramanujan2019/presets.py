"""The presets of the experiment: quick, short, and paper. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from maskedconv.runs.preset import Network, Preset


@dataclass(frozen=True, kw_only=True)
class SupermaskPreset(Preset):
    """The networks and kept fractions of the experiment, or smaller ones.

    Attributes:
        networks: networks whose kept fraction is varied.
        fractions: the kept fractions k.
        compared: the kept fraction at which distributions and widths are compared.
        wide: network whose width is varied.
        widths: factors of its channels.
        networks_of: the networks on data sets that have networks of their own, without widths.
    """

    networks: tuple[Network, ...]
    fractions: tuple[float, ...]
    wide: str
    widths: tuple[float, ...]
    networks_of: Mapping[str, tuple[Network, ...]]
    compared: float = 0.5


ITEM_ID = "supermask"
_NETWORKS_OF = MappingProxyType(
    {
        "mnist": (Network("fc_300_100"),),
        "mnist5k": (Network("fc_300_100"), Network("conv2")),
        "imagenet": (Network("imagenet_resnet_50"),),
        "photos": (Network("imagenet_resnet_50"),),
    }
)
_CONV = ("conv2", "conv4", "conv6", "conv8")
# The paper has no DenseNet.
_DEEP = ("resnet18", "wrn_28_4", "densenet_bc_100_12")
_PAPER = SupermaskPreset(
    name="paper",
    datasets=("cifar10", "mnist"),
    networks=tuple(map(Network, (*_CONV, *_DEEP))),
    fractions=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    wide="conv4",
    widths=(0.5, 1.0, 1.5, 2.0),
    networks_of=_NETWORKS_OF,
)
_SHORT = replace(
    _PAPER,
    name="short",
    datasets=("cifar10",),
    networks=tuple(map(Network, ("conv2", "conv4", "conv6"))),
    fractions=(0.1, 0.3, 0.5, 0.7, 0.9),
    widths=(0.5, 1.0, 1.5),
    subset=500,
    epochs=MappingProxyType({ITEM_ID: 10}),
)
_QUICK = replace(
    _SHORT,
    name="quick",
    datasets=("digits",),
    networks=(Network("conv2", (), (("width", 0.5),)), Network("conv4", (), (("width", 0.5),))),
    wide="conv2",
    widths=(0.125, 0.5, 1.0),
    subset=None,
    batch_size=64,
    epochs=MappingProxyType({ITEM_ID: 12}),
    # Such small layers gain nothing from a second thread.
    threads=1,
)
PRESETS: Mapping[str, SupermaskPreset] = MappingProxyType(
    {preset.name: preset for preset in (_QUICK, _SHORT, _PAPER)}
)
