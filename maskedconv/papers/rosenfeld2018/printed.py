"""Decides whether our numbers are comparable with the paper's. Accuracies are top-1, percent.

Source: Rosenfeld & Tsotsos 2018 (arXiv 1802.00844). The module of each figure and table contains
its printed numbers.
"""

from __future__ import annotations

from collections.abc import Callable

from maskedconv.report.results import SeedGroup
from maskedconv.runs.config import RunConfig

FULL_EPOCHS = {
    "alexnet": 164,
    "densenet_bc_100_12": 300,
    "vgg19": 164,
    "vgg19_bn": 164,
    "wrn_28_4": 200,
    "wrn_28_10": 200,
}

# Heading of the paper's numbers beside ours of another network, other images or other epochs.
NOT_COMPARABLE = "paper (not comparable)"


def full_epochs(config: RunConfig) -> int:
    """Epochs of the paper's full run of a network; 0 for other networks."""
    return FULL_EPOCHS.get(config.model, 0)


def always(epochs: int) -> Callable[[RunConfig], int]:
    """``printed_epochs`` of an item that trains every network for ``epochs``."""
    return lambda config: epochs


def same_network(config: RunConfig) -> bool:
    """Whether the run has one of the paper's networks in full width, and all images."""
    width = dict(config.options).get("width", 1)
    return config.model in FULL_EPOCHS and width == 1 and config.subset is None


def comparable(setting: SeedGroup, model: str, dataset: str, epochs: int) -> bool:
    """Whether a setting has the network, images and epochs of a printed number."""
    config = setting.config
    return (
        same_network(config)
        and (config.model, config.dataset, config.epochs) == (model, dataset, epochs)
        and setting.whole_data
    )
