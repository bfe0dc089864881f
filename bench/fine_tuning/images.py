"""The images that a pretrained network is fine-tuned on: some of CIFAR-10, enlarged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskedconv import data
from maskedconv.data.subsets import subset_of

# The weights were trained on values from -1 to 1.
MEAN = STD = (0.5, 0.5, 0.5)
TEST_BATCH = 100


@dataclass(frozen=True)
class Setting:
    """The data and the length of a training.

    Attributes:
        train, validation, test: images of each class.
        size: pixels of a side, after enlarging.
    """

    train: int = 100
    validation: int = 50
    test: int = 100
    epochs: int = 3
    batch: int = 32
    size: int = 64

    def as_row(self) -> dict[str, int]:
        return asdict(self)


class Images:
    """Training, validation and test images; validation images are others of the training set.

    Args:
        folder: CIFAR-10, as ``maskedconv.data.load`` takes it.
    """

    def __init__(self, folder: Path, setting: Setting) -> None:
        whole = cast(data.Dataset, data.load("cifar10", folder))
        labels = whole.train_labels.numpy()
        train = subset_of(labels, setting.train, 0)
        both = subset_of(labels, setting.train + setting.validation, 0)
        whole = replace(whole.take_test(setting.test, 0), mean=MEAN, std=STD)
        self.setting = setting
        self.test = _with_training_images(whole, train)
        self.validation = _as_test(_with_training_images(whole, np.setdiff1d(both, train)))

    @property
    def steps(self) -> int:
        """Training steps of all epochs."""
        return self.setting.epochs * data.num_batches(self.test, self.setting.batch)

    def batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Training batches of all epochs: float [N, 3, size, size] and int64 [N]."""
        for epoch in range(self.setting.epochs):
            for images, labels in self.test.train_batches(self.setting.batch, seed, epoch):
                yield self._enlarged(images), labels

    @torch.inference_mode()
    def accuracy(self, model: nn.Module, images: data.Dataset) -> float:
        """The fraction of the test images in ``images`` that ``model`` classifies correctly."""
        right = [
            (model(self._enlarged(batch)).argmax(1) == labels).float()
            for batch, labels in images.test_batches(TEST_BATCH)
        ]
        return torch.cat(right).mean().item()

    def _enlarged(self, images: Tensor) -> Tensor:
        return F.interpolate(images, (self.setting.size,) * 2, mode="bilinear")


def _with_training_images(whole: data.Dataset, keep: npt.NDArray[np.intp]) -> data.Dataset:
    chosen = torch.from_numpy(keep)
    return replace(
        whole, train_images=whole.train_images[chosen], train_labels=whole.train_labels[chosen]
    )


def _as_test(images: data.Dataset) -> data.Dataset:
    return replace(images, test_images=images.train_images, test_labels=images.train_labels)
