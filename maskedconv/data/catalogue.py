"""The datasets by name, with facts known before they are read. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass

from maskedconv.data.errors import DataError

# The paper's normalisation of CIFAR, in fractions of the largest pixel value.
CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2023, 0.1994, 0.2010)
# Of ImageNet's photographs, as in torchvision's training of its networks.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# The beginning of the names of the translation tasks; the numbers below the rest of it.
NUMBER_WORDS = "number-words-"
# In the note on a data set whose published arrays were replaced by JPEG files.
JPEG_COPY = "from a JPEG copy"


@dataclass(frozen=True)
class DatasetInfo:
    """Facts about a dataset that are known before it is read; ``None`` for unknown ones.

    ``train_per_class`` is the size of the smallest class of the training set. If ``mean`` and
    ``std`` are ``None``, they are computed from the training images. ``crop_padding`` is in pixels.
    ``streamed`` images have any size and are read while a network is trained (data/streamed.py).
    So many test examples are ``related``, such as translations of one number, that a network gets
    all or none of them right.
    """

    name: str
    title: str
    num_classes: int | None
    channels: int
    image_size: int | None
    train_size: int | None
    test_size: int | None
    train_per_class: int | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    crop_padding: int | None
    flip: bool
    streamed: bool = False
    related: int = 1


_DATASETS = {
    info.name: info
    for info in (
        # A mirrored digit is another sign, and one pixel is an eighth of the image.
        DatasetInfo("digits", "handwritten digits", 10, 1, 8, 1433, 364, 139, None, None, 1, False),
        DatasetInfo(
            "cifar10", "CIFAR-10", 10, 3, 32, 50_000, 10_000, 5_000, CIFAR_MEAN, CIFAR_STD, 4, True
        ),
        DatasetInfo(
            "cifar100", "CIFAR-100", 100, 3, 32, 50_000, 10_000, 500, CIFAR_MEAN, CIFAR_STD, 4, True
        ),
        # The padding of the crops is twice CIFAR's. The authors' code (arXiv 1802.00844) has none.
        DatasetInfo(
            "tiny-imagenet", "Tiny-ImageNet", 200, 3, 64, 100_000, 10_000, 500, None, None, 8, True
        ),
        # Sequences of tokens (data/number_words.py): channels are the source and its translation.
        *(
            DatasetInfo(
                f"{NUMBER_WORDS}{numbers}",
                f"number words below {numbers:,}",
                None,
                2,
                None,
                train,
                test,
                None,
                None,
                None,
                None,
                False,
                related=6,  # a number in all pairs of three languages
            )
            for numbers, train, test in ((1_000, 4_920, 1_080), (10_000, 48_120, 11_880))
        ),
        *(
            DatasetInfo(
                *(name, title, classes, 3, 224, train, test, None),
                *(IMAGENET_MEAN, IMAGENET_STD, None, True),
                streamed=True,
            )
            for name, title, classes, train, test in (
                ("imagenet", "ImageNet", 1000, 1_281_167, 50_000),
                ("photos", "a folder of photographs", None, None, None),
            )
        ),
        DatasetInfo(
            "folder", "an image folder", None, 3, None, None, None, None, None, None, None, True
        ),
        DatasetInfo(
            *("mnist", "MNIST", 10, 1, 28, 60_000, 10_000, 5_421),
            *((0.1307,), (0.3081,), 0, False),
        ),
        DatasetInfo(
            "mnist5k", "5,000 digits of MNIST", 10, 1, 28, 4_000, 1_000, 400, None, None, 2, False
        ),
    )
}


def available() -> list[str]:
    """Names that ``load`` accepts."""
    return list(_DATASETS)


def describe(name: str) -> DatasetInfo:
    """Facts about dataset ``name`` that are known without reading it.

    Raises:
        DataError: there is no dataset of that name.
    """
    if name not in _DATASETS:
        raise DataError(f"dataset is {name!r}; expected one of {', '.join(_DATASETS)}")
    return _DATASETS[name]
