"""How large an experiment is run: quick, short, or as in the paper.

A preset names the networks, the data, the settings and the epochs; :mod:`registry` makes runs of
them. Free of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from maskedconv.runs.config import Option


@dataclass(frozen=True)
class Network:
    """One of the paper's networks as a preset runs it.

    Attributes:
        model: name for ``maskedconv.models.create``.
        lrs: learning rates to run; empty for that of the model's recipe alone.
        options: further options of the model.
    """

    model: str
    lrs: tuple[float, ...] = ()
    options: tuple[tuple[str, Option], ...] = ()


@dataclass(frozen=True)
class Settings:
    """What the experiments are to be made of.

    Attributes:
        preset: its name.
        datasets: run each of them.
        tiny_dataset: of table3 and fig6.
        densenet, wrn, wide, vgg19, vgg19_bn, alexnet: the paper's networks, or small ones of their
            kind; ``wide`` is fig5's in place of ``wrn``.
        fractions, counts: what is learned in fig1 and fig4.
        slice_fractions, slice_counts: what is learned in fig2.
        full_fractions, full_counts: what is learned in fig5.
        tiny_fractions: what is learned in table3.
        ensemble_fractions, ensemble_members: what each of so many members learns in table4.
        epochs: per experiment id; where an id is not there, those of the networks' recipes.
        batch_size: in place of the recipes', or None.
        seeds: how many seeds, from 0.
        subset, tiny_subset: training images per class of ``datasets`` and of ``tiny_dataset``, or
            None for all.
        threads: of the CPU, or None for torch's choice.
        amp: "bf16" or "off".
    """

    preset: str
    datasets: tuple[str, ...]
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
    epochs: Mapping[str, int]
    tiny_fractions: tuple[float, ...] = (0.1, 0.4, 0.7, 1.0)
    ensemble_fractions: tuple[float, ...] = (0.1, 0.4, 0.7, 1.0)
    ensemble_members: int = 5
    batch_size: int | None = None
    seeds: int = 1
    subset: int | None = None
    tiny_subset: int | None = None
    threads: int | None = None
    amp: str = "off"

    @property
    def networks(self) -> tuple[Network, ...]:
        """Figure 1's five, in the paper's order."""
        return (self.densenet, self.wrn, self.vgg19, self.vgg19_bn, self.alexnet)


# The experiments that have a number of epochs of their own; the others show runs of these.
EPOCHS_OF = ("fig1", "fig2", "fig5", "table1", "table3", "table4")
# Rosenfeld & Tsotsos 2018, section 4. AlexNet and VGG-19 without BatchNorm do not train at the
# paper's learning rate of .1; the authors' reference runs of them used .01.
_WITHOUT_BN_LRS = (0.1, 0.01)
_PAPER = Settings(
    preset="paper",
    datasets=("cifar10", "cifar100"),
    tiny_dataset="tiny-imagenet",
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
    # Figure 5 (and table 2) are full runs, as long as the recipes say.
    epochs=MappingProxyType({"fig1": 10, "fig2": 1, "table1": 10, "table3": 45, "table4": 1}),
)
_SHORT = replace(
    _PAPER,
    preset="short",
    datasets=("cifar10",),
    # A tenth of CIFAR-10: for an hour of a GPU, or a night of a CPU with 16 cores.
    subset=500,
    epochs=MappingProxyType(
        {"fig1": 4, "fig2": 2, "fig5": 8, "table1": 4, "table3": 5, "table4": 2}
    ),
)
_EIGHTH = (("width", 0.125),)
_QUICK = Settings(
    preset="quick",
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
    # Layers of so few values gain nothing from a second thread, and lose much on a busy machine.
    threads=1,
)
PRESETS: Mapping[str, Settings] = MappingProxyType(
    {settings.preset: settings for settings in (_QUICK, _SHORT, _PAPER)}
)


def settings(
    preset: str,
    *,
    dataset: str | None = None,
    tiny_dataset: str | None = None,
    epochs: int | None = None,
    subset: int | None = None,
    seeds: int = 1,
) -> Settings:
    """The settings of ``preset`` with what was asked for in place of its own.

    ``dataset`` takes the place of every data set of the preset, and ``tiny_dataset`` that of
    table3 and fig6 in either.

    Raises:
        ValueError: an unknown preset (the message lists them); epochs, subset or seeds below 1.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset is {preset!r}; expected one of {', '.join(PRESETS)}")
    for name, value in (("epochs", epochs), ("subset", subset), ("seeds", seeds)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; expected at least 1")
    chosen = replace(PRESETS[preset], seeds=seeds)
    if dataset is not None:
        chosen = replace(chosen, datasets=(dataset,), tiny_dataset=dataset)
    if tiny_dataset is not None:
        chosen = replace(chosen, tiny_dataset=tiny_dataset)
    if subset is not None:
        chosen = replace(chosen, subset=subset, tiny_subset=subset)
    elif chosen.tiny_dataset in chosen.datasets:
        chosen = replace(chosen, tiny_subset=chosen.subset)
    if epochs is not None:
        chosen = replace(chosen, epochs=MappingProxyType(dict.fromkeys(EPOCHS_OF, epochs)))
    return chosen
