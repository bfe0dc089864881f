"""Published numbers: of the paper, and of near relatives on the same networks. Top-1, percent."""

from __future__ import annotations

from collections.abc import Sequence

from maskedconv.report.document import Table
from maskedconv.report.masks import kept_fraction, method_option
from maskedconv.report.results import SeedGroup
from maskedconv.report.tables import NOTHING, best

# Ramanujan et al. 2019, ImageNet, k = 0.3: Kaiming normal, signed constant.
IMAGENET = {
    "ResNet-50": (61.7, 68.6),
    "ResNet-101": (66.15, 72.3),
    "WRN-50-2": (67.9, 73.3),
}
IMAGENET_K, EPOCHS = 0.3, 100
# Those of these networks that the package has.
MODELS = {"ResNet-50": "imagenet_resnet_50", "ResNet-101": "imagenet_resnet_101"}
# CIFAR-10. Zhou et al. 2019 (arXiv 1905.01067): supermask, trained. Signed supermasks:
# Koster et al. 2022, with 0.6 to 2.9 % of the weights kept.
RELATIVES = {
    "conv2": (66.0, 69.2, 68.37),
    "conv4": (72.5, 75.4, 77.40),
    "conv6": (76.5, 78.3, 79.17),
    "conv8": (None, None, 80.91),
}


def imagenet_table(settings: Sequence[SeedGroup]) -> Table:
    """The paper's ImageNet results, beside ours if one of the networks was run."""
    rows = []
    for name, numbers in IMAGENET.items():
        row = [name]
        for weights, number in zip(("kaiming", "signed_constant"), numbers, strict=True):
            row += [f"{number:g}", best(_run_of(name, weights, settings))]
        rows.append(row)
    return Table(
        f"ImageNet, k = {IMAGENET_K:g}: top-1, % (the paper: {EPOCHS} epochs; {NOTHING}: not run "
        "here)",
        ("network", "Kaiming normal, paper", "ours", "signed constant, paper", "ours"),
        rows,
        frozenset(range(1, 5)),
    )


def _run_of(name: str, weights: str, settings: Sequence[SeedGroup]) -> SeedGroup | None:
    """The setting with the network, images and epochs of a number on ImageNet."""
    for setting in settings:
        config = setting.config
        if (
            (config.model, config.dataset, config.epochs) == (MODELS.get(name), "imagenet", EPOCHS)
            and (kept_fraction(config), method_option(config, "weights")) == (IMAGENET_K, weights)
            and setting.whole_data
        ):
            return setting
    return None
