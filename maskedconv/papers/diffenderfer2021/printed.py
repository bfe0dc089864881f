"""The paper's printed results. Top-1, percent."""

from __future__ import annotations

from typing import NamedTuple

from maskedconv.report.document import Table
from maskedconv.report.masks import kept_fraction, method_option, width_of
from maskedconv.report.results import SeedGroup
from maskedconv.report.tables import best
from maskedconv.runs.config import RunConfig


class Printed(NamedTuple):
    """A printed accuracy on CIFAR-10, and the run that it belongs to."""

    network: str
    model: str
    width: float
    activation: str
    k: float
    norm_learned: bool
    top1: float


CIFAR10 = (
    Printed("VGG-Small, 1/32", "vgg_small", 1.0, "relu", 0.05, False, 91.48),
    Printed("ResNet-18, 1/32", "resnet18", 1.0, "relu", 0.2, False, 94.66),
    Printed("ResNet-18, 1/32, BatchNorm learned", "resnet18", 1.0, "relu", 0.2, True, 94.80),
    Printed("VGG-Small ×1.25, 1/1", "vgg_small", 1.25, "sign", 0.25, False, 89.11),
    Printed("VGG-Small ×1.25, 1/1, BatchNorm learned", "vgg_small", 1.25, "sign", 0.25, True, 91.9),
)
EPOCHS = 100
# ImageNet: fixed and learned BatchNorm.
IMAGENET = {
    "WRN-50, 1/32, 80 % pruned": (72.67, 74.03),
    "WRN-34, 1/1, 60 % pruned": (45.06, 52.07),
}


def activation_of(config: RunConfig) -> str:
    """The activation of a run's network."""
    return str(dict(config.options).get("activation", "relu"))


def learns_norm(config: RunConfig) -> bool:
    """Whether BatchNorm's affine parameters are learned beside the scores."""
    return method_option(config, "norm_learned") is True


def run_of(printed: Printed, settings: list[SeedGroup]) -> SeedGroup | None:
    """The setting with the network, images, epochs and settings of a printed number."""
    for setting in settings:
        config = setting.config
        own = (config.model, width_of(config), activation_of(config), kept_fraction(config))
        layerwise = method_option(config, "threshold") in (None, "layer")
        if (
            own == (printed.model, printed.width, printed.activation, printed.k)
            and (config.method, config.dataset) == ("biprop", "cifar10")
            and learns_norm(config) == printed.norm_learned
            and layerwise
            and config.epochs == EPOCHS
            and setting.whole_data
        ):
            return setting
    return None


def printed_tables(settings: list[SeedGroup]) -> list[Table]:
    """The printed numbers beside ours, and those on ImageNet, which are not run here."""
    rows = [
        [
            printed.network,
            f"{printed.k:g}",
            best(run_of(printed, settings)),
            f"{printed.top1:g}",
        ]
        for printed in CIFAR10
    ]
    imagenet = [[name, f"{fixed:g}", f"{own:g}"] for name, (fixed, own) in IMAGENET.items()]
    return [
        Table(
            f"CIFAR-10, {EPOCHS} epochs, top-1, %",
            ("network", "k", "ours", "paper"),
            rows,
            frozenset({1, 2, 3}),
        ),
        Table(
            "The paper's ImageNet results, not run here: top-1, %",
            ("network", "BatchNorm fixed", "BatchNorm learned"),
            imagenet,
            frozenset({1, 2}),
        ),
    ]
