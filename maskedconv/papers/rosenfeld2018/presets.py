"""The presets of the experiments: quick, short, and paper. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Self

from maskedconv.runs.preset import Network, Preset, Request

TINY = "tiny-imagenet"


@dataclass(frozen=True, kw_only=True)
class RosenfeldPreset(Preset):
    """The networks, data and slices of the paper's experiments, or smaller ones.

    Attributes:
        tiny_dataset: the data set of table3 and fig6.
        densenet, wrn, wide, vgg19, vgg19_bn, alexnet: the paper's networks, or small ones of the
            same families; fig5 uses ``wide`` instead of ``wrn``.
        fractions, counts: learned slices of fig1 and fig4.
        slice_fractions, slice_counts: learned slices of fig2.
        full_fractions, full_counts: learned slices of fig5.
        tiny_fractions: learned fractions of table3.
        ensemble_fractions, ensemble_members: learned fractions and numbers of members in table4.
        tiny_subset: training images per class of ``tiny_dataset``, or None for all.
    """

    tiny_dataset: str
    densenet: Network
    wrn: Network
    wide: Network
    vgg19: Network
    vgg19_bn: Network
    alexnet: Network
    fractions: tuple[float, ...]
    counts: tuple[int, ...]
    slice_fractions: tuple[float, ...]
    slice_counts: tuple[int, ...]
    full_fractions: tuple[float, ...]
    full_counts: tuple[int, ...]
    tiny_fractions: tuple[float, ...] = (0.1, 0.4, 0.7, 1.0)
    ensemble_fractions: tuple[float, ...] = (0.1, 0.4, 0.7, 1.0)
    ensemble_members: int = 5
    tiny_subset: int | None = None

    @property
    def networks(self) -> tuple[Network, ...]:
        """Figure 1's five, in the paper's order."""
        return (self.densenet, self.wrn, self.vgg19, self.vgg19_bn, self.alexnet)

    def adapted(self, request: Request) -> Self:
        """Table3 and fig6 take a requested data set, too, but not if Tiny-ImageNet has a folder."""
        chosen = super().adapted(request)
        if request.dataset is not None:
            chosen = replace(chosen, tiny_dataset=request.dataset)
        if TINY in request.folders:
            chosen = replace(chosen, tiny_dataset=TINY)
        if request.subset is not None:
            chosen = replace(chosen, tiny_subset=request.subset)
        elif chosen.tiny_dataset in chosen.datasets:
            chosen = replace(chosen, tiny_subset=chosen.subset)
        return chosen


# Rosenfeld & Tsotsos 2018, section 4: AlexNet and VGG-19 without BatchNorm hardly train at the
# learning rate of .1. The authors' reference runs of them used .01.
_WITHOUT_BN_LRS = (0.1, 0.01)
_PAPER = RosenfeldPreset(
    name="paper",
    datasets=("cifar10", "cifar100"),
    tiny_dataset=TINY,
    densenet=Network("densenet_bc_100_12"),
    wrn=Network("wrn_28_4"),
    wide=Network("wrn_28_10"),
    vgg19=Network("vgg19", _WITHOUT_BN_LRS),
    vgg19_bn=Network("vgg19_bn"),
    alexnet=Network("alexnet", _WITHOUT_BN_LRS),
    fractions=(0.07, 0.08, 0.09, 0.1, 0.4, 0.7),
    counts=(1, 5, 10),
    slice_fractions=(0.1, 0.4, 0.7),
    slice_counts=(1, 5),
    full_fractions=(0.07, 0.1, 0.4, 0.7),
    full_counts=(1, 5),
    # Figure 5 (with table 2) and table 3 are full runs.
    epochs=MappingProxyType({"fig1": 10, "fig2": 1, "table1": 10, "table4": 1}),
)
_SHORT = replace(
    _PAPER,
    name="short",
    datasets=("cifar10",),
    # A tenth of CIFAR-10: for an hour of a GPU, or a night of a CPU with 16 cores.
    subset=500,
    epochs=MappingProxyType(
        {"fig1": 4, "fig2": 2, "fig5": 8, "table1": 4, "table3": 5, "table4": 2}
    ),
)
_EIGHTH = (("width", 0.125),)
_QUICK = RosenfeldPreset(
    name="quick",
    datasets=("digits",),
    tiny_dataset="digits",
    densenet=Network("densenet_bc_16_12"),
    wrn=Network("wrn_10_1"),
    wide=Network("wrn_10_2"),
    vgg19=Network("vgg19", _WITHOUT_BN_LRS, _EIGHTH),
    vgg19_bn=Network("vgg19_bn", (), _EIGHTH),
    alexnet=Network("alexnet", _WITHOUT_BN_LRS, _EIGHTH),
    fractions=(0.1, 0.4, 0.7),
    counts=(1, 5),
    slice_fractions=(0.1, 0.4),
    slice_counts=(1, 5),
    full_fractions=(0.1, 0.4, 0.7),
    full_counts=(1, 5),
    epochs=MappingProxyType(
        {"fig1": 6, "fig2": 2, "fig5": 12, "table1": 6, "table3": 15, "table4": 2}
    ),
    batch_size=64,
    # Such small layers gain nothing from a second thread, and lose much on a busy machine.
    threads=1,
)
PRESETS: Mapping[str, RosenfeldPreset] = MappingProxyType(
    {preset.name: preset for preset in (_QUICK, _SHORT, _PAPER)}
)


def remarks(preset: RosenfeldPreset, ids: Sequence[str]) -> list[str]:
    """Notes that table 3 runs on other data than in the paper."""
    items = [name for name in ids if name in ("fig6", "table3")]
    if not items or preset.tiny_dataset == PRESETS[preset.name].tiny_dataset:
        return []
    return [
        f"{' and '.join(items)} run on {preset.tiny_dataset}; "
        f"--data-dir {TINY}=DIR runs them on Tiny-ImageNet"
    ]
