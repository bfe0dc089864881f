"""Images that are read from disk while a network is trained: ImageNet."""

from __future__ import annotations

import dataclasses
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from maskedconv.data.augment import normalise
from maskedconv.data.batches import batch_bounds, generator_of
from maskedconv.data.classification import Classification
from maskedconv.data.decode import opened_rgb
from maskedconv.data.digest import digest_of_text
from maskedconv.data.listing import Listing, Split
from maskedconv.data.preprocessing import Preprocessing, bilinear, centre, pixels
from maskedconv.data.share import WHOLE, Share
from maskedconv.data.subsets import checked_subset, fewer_test_images

# The side of an image, and of the whole test image before its centre is cut out.
SIZE, TEST_SIZE = 224, 256
# Szegedy et al. 2014 (arXiv 1409.4842): share of the area, and ratio of width to height.
_AREA, _RATIO, _TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10
_BATCHES_AHEAD = 2
_SIZES_READ = 1_000
Box = tuple[int, int, int, int]  # left, upper, right, lower
# Reads the image of an index.
Read = Callable[[int], Tensor]


@dataclass(frozen=True, eq=False)
class StreamedImages(Classification):
    """Images of any size in files, as batches of 224×224 pixels on ``device``.

    A training image is a random part of the file's, 8 to 100 % of the area at a ratio of 3/4 to
    4/3, mirrored at random; a test image is the centre of the file's, resized to a shorter side
    of 256 pixels. Threads read ahead of the training. The parts depend on seed and epoch only.
    """

    name: str
    listing: Listing
    mean: tuple[float, ...]
    std: tuple[float, ...]
    note: str
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    share: Share = WHOLE

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.listing.classes

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits of the files' names and classes, and of a thousand files' sizes.

        To read a million images takes too long.
        """
        splits = self.listing.train, self.listing.test
        paths = [path for split in splits for path in split.paths]
        classes = [self.classes[label] for split in splits for label in split.labels]
        sizes = (str(path.stat().st_size) for path in paths[:: 1 + len(paths) // _SIZES_READ])
        return digest_of_text([*(path.name for path in paths), *classes, *sizes])

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        return 3, SIZE, SIZE

    @property
    def train_size(self) -> int:
        """Number of training images."""
        return len(self.listing.train.paths)

    @property
    def test_size(self) -> int:
        """Number of test images."""
        return len(self.listing.test.paths)

    def to(self, device: str | torch.device) -> StreamedImages:
        """The same images, with batches on ``device``."""
        return dataclasses.replace(self, device=torch.device(device))

    def shared(self, share: Share) -> StreamedImages:
        """The same images; this process reads and computes ``share`` of them."""
        return dataclasses.replace(self, share=share)

    @property
    def preprocessing(self) -> Preprocessing:
        """How a file becomes a test image."""
        return Preprocessing(3, SIZE, TEST_SIZE, self.mean, self.std)

    def take_test(self, per_class: int, seed: int) -> StreamedImages:
        """The same images with ``per_class`` test images of each class.

        Raises:
            DataError: a class has fewer.
        """
        whole = self.listing.test
        keep = checked_subset(np.array(whole.labels), self.classes, per_class, seed)
        test = whole.take(keep.tolist())
        listing = dataclasses.replace(self.listing, test=test)
        note = fewer_test_images(self.note, len(keep), self.test_size)
        return dataclasses.replace(self, listing=listing, note=note)

    def train_batches(
        self, batch_size: int, seed: int, epoch: int, first_batch: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised images [B, 3, 224, 224] and labels [B]; see ``data.train_batches``.

        Raises:
            DataError: a file cannot be read as an image.
        """
        split = self.listing.train
        bounds = batch_bounds(self.train_size, batch_size, self.share.count)
        generator = generator_of(seed, epoch)
        order = torch.randperm(self.train_size, generator=generator).tolist()
        key = generator.initial_seed()

        def read(index: int) -> Tensor:
            random = np.random.default_rng([key, index])
            with opened_rgb(split.paths[index]) as (image, _):
                part = image.resize((SIZE, SIZE), bilinear(), box=random_box(image.size, random))
            found = pixels(part)
            return found.flip(2) if random.random() < 0.5 else found

        batches = list(pairwise(bounds[first_batch:]))
        parts = [order[slice(*self.share.inputs(start, stop))] for start, stop in batches]
        return self._batches(split, [order[start:stop] for start, stop in batches], parts, read)

    def test_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The test images in their order, as :meth:`train_batches` gives them."""
        split = self.listing.test

        def read(index: int) -> Tensor:
            with opened_rgb(split.paths[index]) as (image, _):
                return pixels(centre(image, TEST_SIZE, SIZE))

        bounds = [*range(0, self.test_size, batch_size), self.test_size]
        batches = self.share.dealt(pairwise(bounds))
        chosen = [list(range(start, stop)) for start, stop in batches]
        return self._batches(split, chosen, chosen, read)

    def _batches(
        self, split: Split, batches: list[list[int]], parts: list[list[int]], read: Read
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The images of ``parts`` with the labels of ``batches``."""
        labels = torch.tensor(split.labels)
        for indices, images in zip(batches, _read_ahead(parts, read), strict=True):
            inputs = normalise(images.to(self.device), self.mean, self.std)
            yield inputs, labels[indices].to(self.device)

    @torch.no_grad()
    def measure(self, model: nn.Module) -> dict[str, float]:
        """Top-5 on the test images, in percent; leaves the model in eval mode."""
        model.eval()
        best = min(5, self.num_classes)
        right = sum(
            int((model(images).topk(best, 1).indices == labels[:, None]).sum())
            for images, labels in self.test_batches(128)
        )
        return {"top5": round(100 * right / self.test_size, 6)}


def _read_ahead(chosen: Sequence[Sequence[int]], read: Read) -> Iterator[Tensor]:
    """The results of ``read`` for the indices of each batch, stacked."""
    waiting: deque[list[Future[Tensor]]] = deque()
    left = iter(chosen)
    pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
    try:
        while True:
            while len(waiting) <= _BATCHES_AHEAD and (indices := next(left, None)) is not None:
                waiting.append([pool.submit(read, index) for index in indices])
            if not waiting:
                return
            yield torch.stack([future.result() for future in waiting.popleft()])
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def random_box(size: tuple[int, int], random: np.random.Generator) -> Box:
    """A random part of an image of ``size`` (width, height).

    The largest part in the middle that keeps the limits of the ratio, if ten random ones do not
    fit.
    """
    width, height = size
    for _ in range(_TRIES):
        area = width * height * random.uniform(*_AREA)
        ratio = math.exp(random.uniform(math.log(_RATIO[0]), math.log(_RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, upper = (int(random.integers(n + 1)) for n in (width - w, height - h))
            return left, upper, left + w, upper + h
    w = min(width, round(height * _RATIO[1]))
    h = min(height, round(width / _RATIO[0]))
    left, upper = (width - w) // 2, (height - h) // 2
    return left, upper, left + w, upper + h
