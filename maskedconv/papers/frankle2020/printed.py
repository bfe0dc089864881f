"""Accuracies of other sources on CIFAR-10 after full runs, and which of our runs compare."""

from __future__ import annotations

from typing import NamedTuple

from maskedconv.papers.frankle2020.settings import ALL, BN, depth, setting_of, width
from maskedconv.report.results import SeedGroup
from maskedconv.runs.config import RunConfig

EPOCHS = 160
IMAGENET_EPOCHS = 90


def full_epochs(config: RunConfig) -> int:
    """Epochs of the paper's run of a network."""
    return IMAGENET_EPOCHS if config.model.startswith("imagenet") else EPOCHS


class Printed(NamedTuple):
    """Top-1 in percent, and its source."""

    top1: float
    source: str


_TEXT = "the paper's abstract"
_SECONDARY = "secondary source"
_TENSORFLOW = "independent TensorFlow reproduction"
_SCHEDULE = f"{_TENSORFLOW}, other schedule"

# The abstract of arXiv 2003.00152; accounts of its figures by others; and an independent
# reproduction in TensorFlow, which changed the schedule of the three deepest networks.
PRINTED: dict[tuple[str, int], tuple[Printed, ...]] = {
    (BN, 14): (Printed(48.0, _SECONDARY), Printed(46.67, _TENSORFLOW)),
    (BN, 32): (Printed(51.29, _TENSORFLOW),),
    (BN, 56): (Printed(55.21, _TENSORFLOW),),
    (BN, 110): (Printed(69.5, _SECONDARY), Printed(65.19, _TENSORFLOW)),
    (BN, 218): (Printed(70.09, _SCHEDULE),),
    (BN, 434): (Printed(73.67, _SCHEDULE),),
    (BN, 866): (Printed(82.0, _TEXT), Printed(77.83, _SCHEDULE)),
    (ALL, 14): (Printed(91.0, f"{_SECONDARY}, about"),),
    (ALL, 110): (Printed(93.3, f"{_SECONDARY}, about"),),
}


def printed(group: SeedGroup) -> tuple[Printed, ...]:
    """The accuracies of other sources for the network and setting of ``group``."""
    config = group.config
    if width(config) != 1:
        return ()
    return PRINTED.get((setting_of(config).name, depth(config.model)), ())


def comparable(group: SeedGroup) -> bool:
    """Whether the group has the images and epochs of these numbers."""
    config = group.config
    return (config.dataset, config.epochs) == ("cifar10", EPOCHS) and group.whole_data
