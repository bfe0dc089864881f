"""Batches of a dataset. Order and augmentation depend on the seed and the epoch only."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from maskedconv.checks import check_int
from maskedconv.data.augment import crop_flip, draw_moves, normalise
from maskedconv.seeds import Purpose, mixed_seed

if TYPE_CHECKING:
    from maskedconv.data.dataset import Dataset


def num_batches(dataset: Dataset, batch_size: int) -> int:
    """Number of batches that ``train_batches`` yields in an epoch."""
    return len(batch_bounds(len(dataset.train_images), batch_size, dataset.share.count)) - 1


def train_batches(
    dataset: Dataset,
    batch_size: int,
    seed: int,
    epoch: int,
    dtype: torch.dtype = torch.float32,
    first_batch: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Training set in random order, cropped and flipped at random.

    Order, crops and flips depend on ``seed`` and ``epoch`` only, not on earlier calls or the
    device: a resumed run sees the same batches as an uninterrupted one. The last batch may be
    smaller. If it would have fewer than two images for each process that shares it, it joins the
    batch before it, because one image has no batch statistics. The batches before ``first_batch``
    are skipped.

    Yields:
        channels_last images [B, C, H, W] of ``dtype``, labels int64 [B]; on the dataset's device.
        If the dataset is one of several shares, the images are of this share alone.

    Raises:
        ValueError: ``batch_size`` is below 1, or ``seed``, ``epoch`` or ``first_batch`` below 0.
    """
    check_int("first_batch", first_batch, 0)
    count = len(dataset.train_images)
    bounds = batch_bounds(count, batch_size, dataset.share.count)[first_batch:]
    generator = generator_of(seed, epoch)
    order = torch.randperm(count, generator=generator).to(dataset.device)
    moves = draw_moves(count, dataset.crop_padding, dataset.flip, generator).to(dataset.device)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for start, stop in pairwise(bounds):
            first, end = dataset.share.inputs(start, stop)
            images = dataset.train_images.index_select(0, order[first:end])
            images = crop_flip(images, moves[first:end], dataset.crop_padding)
            images = normalise(images, dataset.mean, dataset.std, dtype)
            yield images, dataset.train_labels.index_select(0, order[start:stop])

    return batches()


# Ruff mistakes the name for a test and the arguments for fixtures.
def test_batches(
    dataset: Dataset,
    batch_size: int,
    dtype: torch.dtype = torch.float32,  # noqa: PT028
) -> Iterator[tuple[Tensor, Tensor]]:
    """Complete test set in its order, not augmented; yields as ``train_batches``.

    If the dataset is one of several shares, these are the share's batches.
    """
    check_int("batch_size", batch_size, 1)
    images, labels = dataset.test_images.split(batch_size), dataset.test_labels.split(batch_size)
    return (
        (normalise(x, dataset.mean, dataset.std, dtype), y)
        for x, y in dataset.share.dealt(zip(images, labels, strict=True))
    )


def batch_bounds(count: int, batch_size: int, processes: int = 1) -> list[int]:
    """The first example of each batch of ``count`` examples, and ``count``.

    ``processes`` share each batch; a rest of less than two examples for each joins the last batch.
    """
    check_int("batch_size", batch_size, 1)
    bounds = [*range(0, count, batch_size), count]
    if len(bounds) > 2 and 0 < count % batch_size < 2 * processes:
        del bounds[-2]
    return bounds


def generator_of(seed: int, epoch: int) -> torch.Generator:
    """The generator of an epoch's order and augmentation."""
    for name, value in (("seed", seed), ("epoch", epoch)):
        check_int(name, value, 0)
    return torch.Generator().manual_seed(mixed_seed(seed, epoch, Purpose.EPOCH))
