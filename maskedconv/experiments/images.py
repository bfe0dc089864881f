"""Where the commands take their images from. Free of torch until they are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from maskedconv import data

if TYPE_CHECKING:
    import torch

    from maskedconv.data import Dataset

# Which images make a subset is the same for every seed of a run: seeds repeat the training.
SUBSET_SEED = 0


@dataclass(frozen=True)
class Size:
    """Of a dataset: classes, (C, H, W), training and test images."""

    num_classes: int
    image_shape: tuple[int, int, int]
    train_images: int
    test_images: int


@dataclass(frozen=True)
class Source:
    """The folder given on the command line, if any, and whether to fetch what is missing."""

    data_dir: Path | None = None
    download: bool = False

    def load(self, name: str, subset: int | None, device: torch.device) -> Dataset:
        """The dataset on ``device``; errors as ``maskedconv.data.load``."""
        return data.load(
            name,
            self.data_dir,
            download=self.download,
            subset=subset,
            seed=SUBSET_SEED,
            device=device,
        )

    def size(self, name: str, subset: int | None, device: torch.device) -> Size:
        """Size of the dataset, read only where it cannot be known otherwise."""
        facts = data.describe(name)
        classes, side = facts.num_classes, facts.image_size
        train, test = facts.train_size, facts.test_size
        if classes is None or side is None or train is None or test is None:
            dataset = self.load(name, subset, device)
            counts = len(dataset.train_images), len(dataset.test_images)
            return Size(dataset.num_classes, dataset.image_shape, *counts)
        train = train if subset is None else subset * classes
        return Size(classes, (facts.channels, side, side), train, test)
