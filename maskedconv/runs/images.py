"""The data sets of the commands: folders, checks and sizes. Imports torch only to load them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from maskedconv import data
from maskedconv.data.catalogue import NUMBER_WORDS
from maskedconv.data.sources import find_source
from maskedconv.runs.config import RunConfig

if TYPE_CHECKING:
    import torch

    from maskedconv.data import Task

# A subset has the same images for every seed of a run: seeds repeat the training only.
SUBSET_SEED = 0
# The data sets that --download fetches.
FETCHED = ("cifar10", "cifar100")
# A data set of a run: its name and the training images per class (None: all).
DataKey = tuple[str, int | None]


def data_key(config: RunConfig) -> DataKey:
    """The data set of a run."""
    return config.dataset, config.subset


@dataclass(frozen=True)
class Size:
    """The size of a dataset: classes, shape of an example, numbers of training and test examples.

    An image has the shape (C, H, W), a pair of token sequences (2, L).
    """

    num_classes: int
    image_shape: tuple[int, ...]
    train_images: int
    test_images: int


def size_of(dataset: Task) -> Size:
    """The size of a loaded dataset."""
    counts = dataset.train_size, dataset.test_size
    return Size(dataset.num_classes, dataset.image_shape, *counts)


@dataclass(frozen=True)
class DataLocations:
    """The folders given on the command line, and whether to download missing data sets.

    The keys of ``folders`` are names of data sets; "" is for all others.
    """

    folders: Mapping[str, Path] = field(default_factory=dict)
    download: bool = False

    def folder(self, name: str) -> Path | None:
        """The folder given for the data set, or None; a folder for all is for images only."""
        computed = name.startswith(NUMBER_WORDS)
        return self.folders.get(name, None if computed else self.folders.get(""))

    def check(self, key: DataKey) -> None:
        """Checks cheaply that the data is present; errors as ``maskedconv.data.check``."""
        name, subset = key
        data.check(name, self.folder(name), self._fetches(name), subset)

    def load(self, key: DataKey, device: torch.device) -> Task:
        """The dataset on ``device``; errors as ``maskedconv.data.load``."""
        name, subset = key
        return data.load(
            name,
            self.folder(name),
            download=self._fetches(name),
            subset=subset,
            seed=SUBSET_SEED,
            device=device,
        )

    def size(self, key: DataKey, device: torch.device) -> Size:
        """The size of the dataset, which is read only if its size is unknown.

        A missing data set has its published size.
        """
        name, subset = key
        info = data.describe(name)
        classes, side = info.num_classes, info.image_size
        train, test = info.train_size, info.test_size
        if classes is None or side is None or train is None or test is None:
            return size_of(self.load(key, device))
        with suppress(data.MissingDataError):
            source = find_source(name, self.folder(name), self._fetches(name), subset)
            if source.listing is not None:
                train = len(source.listing.train.paths)
                test = len(source.listing.test.paths)
        train = train if subset is None else subset * classes
        return Size(classes, (info.channels, side, side), train, test)

    def _fetches(self, name: str) -> bool:
        return self.download and name in FETCHED


def parse_folders(texts: Iterable[str]) -> dict[str, Path]:
    """``["cifar10=a", "b"]`` as the ``folders`` of a :class:`DataLocations`.

    Raises:
        ValueError: two folders for one data set, or two for all of them.
    """
    folders: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not equals or name not in data.available():
            name, folder = "", text
        if name in folders:
            given = f"twice for {name}" if name else "twice without the name of a data set"
            raise ValueError(f"data_dir is given {given}; expected --data-dir NAME=DIR for each")
        folders[name] = Path(folder)
    return folders
