"""Published numbers: of the paper, and of near relatives on the same networks. Top-1, percent."""

from __future__ import annotations

from maskedconv.report.document import Table

# Ramanujan et al. 2019, ImageNet, k = 0.3: Kaiming normal, signed constant.
IMAGENET = {
    "ResNet-50": (61.7, 68.6),
    "ResNet-101": (66.15, 72.3),
    "WRN-50-2": (67.9, 73.3),
}
# CIFAR-10. Zhou et al. 2019 (arXiv 1905.01067): supermask, trained. Signed supermasks:
# Koster et al. 2022, with 0.6 to 2.9 % of the weights kept.
RELATIVES = {
    "conv2": (66.0, 69.2, 68.37),
    "conv4": (72.5, 75.4, 77.40),
    "conv6": (76.5, 78.3, 79.17),
    "conv8": (None, None, 80.91),
}


def imagenet_table() -> Table:
    """The paper's ImageNet results, which are not run here."""
    rows = [[name, f"{kaiming:g}", f"{signed:g}"] for name, (kaiming, signed) in IMAGENET.items()]
    return Table(
        "The paper's ImageNet results with k = 0.3, not run here: top-1, %",
        ("network", "Kaiming normal", "signed constant"),
        rows,
        frozenset({1, 2}),
    )
