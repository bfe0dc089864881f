"""A dataset in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from maskedconv.data import batches
from maskedconv.data.classification import Classification
from maskedconv.data.digest import digest_of_tensors
from maskedconv.data.preprocessing import Preprocessing
from maskedconv.data.share import WHOLE, Share
from maskedconv.data.subsets import checked_subset, fewer_test_images, subset_of


@dataclass(frozen=True, eq=False)
class Dataset(Classification):
    """Images as uint8 [N, C, H, W] and labels as int64 [N], all on one device.

    ``mean`` and ``std`` are per channel, in fractions of the largest pixel value. Training images
    are padded by ``crop_padding`` black pixels on each side, cropped at random, and mirrored at
    random if ``flip``. ``note`` describes the origin of the images. ``share`` is the part of each
    batch that is computed here.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_padding: int
    flip: bool
    note: str
    share: Share = WHOLE

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits that identify images and labels."""
        train, test = self.train_images, self.test_images
        return digest_of_tensors((train, self.train_labels, test, self.test_labels))

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    @property
    def train_size(self) -> int:
        """Number of training images."""
        return len(self.train_images)

    @property
    def test_size(self) -> int:
        """Number of test images."""
        return len(self.test_images)

    @property
    def device(self) -> torch.device:
        """The device of the images."""
        return self.train_images.device

    def to(self, device: str | torch.device) -> Dataset:
        """The same dataset with images and labels on ``device``."""
        moved = {
            field: getattr(self, field).to(device)
            for field in ("train_images", "train_labels", "test_images", "test_labels")
        }
        return dataclasses.replace(self, **moved)

    def shared(self, share: Share) -> Dataset:
        """The same dataset; this process computes ``share`` of it."""
        return dataclasses.replace(self, share=share)

    def train_batches(
        self, batch_size: int, seed: int, epoch: int, first_batch: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As ``maskedconv.data.train_batches``."""
        return batches.train_batches(self, batch_size, seed, epoch, first_batch=first_batch)

    def test_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As ``maskedconv.data.test_batches``."""
        return batches.test_batches(self, batch_size)

    @property
    def preprocessing(self) -> Preprocessing:
        """How a file becomes a test image."""
        channels, size, _ = self.image_shape
        return Preprocessing(channels, size, size, self.mean, self.std)

    def take_test(self, per_class: int, seed: int) -> Dataset:
        """The same dataset with ``per_class`` test images of each class.

        Raises:
            DataError: a class has fewer.
        """
        labels = self.test_labels.cpu().numpy()
        keep = torch.from_numpy(checked_subset(labels, self.classes, per_class, seed))
        keep = keep.to(self.device)
        return dataclasses.replace(
            self,
            test_images=self.test_images[keep],
            test_labels=self.test_labels[keep],
            note=fewer_test_images(self.note, len(keep), self.test_size),
        )

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Nothing further: the top-1 is all."""
        return {}


def take_subset(dataset: Dataset, per_class: int, seed: int) -> Dataset:
    """``dataset`` with only ``per_class`` training images of each class, and all test images.

    The choice depends on ``seed`` alone. A smaller subset is part of every larger one with the same
    seed. The order and normalisation of the full training set are kept.
    """
    keep = torch.from_numpy(subset_of(dataset.train_labels.cpu().numpy(), per_class, seed))
    keep = keep.to(dataset.device)
    return dataclasses.replace(
        dataset,
        train_images=dataset.train_images[keep],
        train_labels=dataset.train_labels[keep],
        note=f"{dataset.note}; {per_class} training images per class",
    )
