"""Random examples in the form of a data set, to time a training without the data.

They are in memory, also those of a data set whose images are read during training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maskedconv.data.catalogue import NUMBER_WORDS, DatasetInfo, describe
from maskedconv.data.dataset import Dataset
from maskedconv.data.task import Task
from maskedconv.data.translation import TranslationSet
from maskedconv.models.tokens import PAD


def noise(
    name: str, example_shape: tuple[int, ...], num_classes: int, sizes: tuple[int, int]
) -> Task:
    """Random examples on the CPU, augmented like those of the data set ``name``.

    Args:
        example_shape: shape of an example, such as (C, H, W).
        sizes: numbers of training and test examples.

    Raises:
        DataError: there is no data set of that name.
    """
    info = describe(name)
    make = _tokens if name.startswith(NUMBER_WORDS) else _images
    return make(info, example_shape, num_classes, sizes)


def _images(
    info: DatasetInfo, shape: tuple[int, ...], num_classes: int, sizes: tuple[int, int]
) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    channels, side = shape[0], shape[1]

    def part(count: int) -> tuple[Tensor, Tensor]:
        images = torch.randint(256, (count, *shape), dtype=torch.uint8, generator=generator)
        return images, torch.randint(num_classes, (count,), generator=generator)

    (images, labels), (others, their_labels) = map(part, sizes)
    return Dataset(
        name="noise",
        train_images=images,
        train_labels=labels,
        test_images=others,
        test_labels=their_labels,
        classes=tuple(str(label) for label in range(num_classes)),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        crop_padding=side // 8 if info.crop_padding is None else info.crop_padding,
        flip=info.flip,
        note="",
    )


def _tokens(
    info: DatasetInfo, shape: tuple[int, ...], num_classes: int, sizes: tuple[int, int]
) -> TranslationSet:
    generator = torch.Generator().manual_seed(0)

    def part(count: int) -> tuple[Tensor, Tensor]:
        both = torch.randint(PAD + 1, num_classes, (count, *shape), generator=generator)
        return both, both[:, 1].clone()

    (pairs, targets), (others, their_targets) = map(part, sizes)
    return TranslationSet(
        name="noise",
        train_pairs=pairs,
        train_targets=targets,
        test_pairs=others,
        test_targets=their_targets,
        classes=tuple(str(token) for token in range(num_classes)),
        note="",
    )
