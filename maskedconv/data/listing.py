"""Image files on disk, found and checked against their layout without opening one."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from maskedconv.data.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".webp"})


@dataclass(frozen=True)
class Split:
    """Image files of one split, with the index of each one's class."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Listing:
    """All image files of a dataset below ``root``."""

    root: Path
    classes: tuple[str, ...]
    train: Split
    test: Split

    def train_per_class(self) -> dict[str, int]:
        """Number of training images of each class, by its name."""
        counts = Counter(self.train.labels)
        return {name: counts[label] for label, name in enumerate(self.classes)}


def list_image_folder(root: Path) -> Listing:
    """List ``root/train/<class>/*`` and ``root/test/<class>/*`` (or ``val``, without a ``test``).

    Files that are no images by their suffix, and hidden ones, are passed over.

    Raises:
        DataError: a split or class is missing or empty, or the splits' classes differ.
    """
    train_root = root / "train"
    test_root = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if not train_root.is_dir() or test_root is None:
        raise DataError(f"{root} is not an image folder: expected train/ and test/ (or val/) in it")
    classes = _folders(train_root)
    if not classes:
        raise DataError(f"{train_root} holds no class folders: expected {train_root}/<class>/*.jpg")
    test_classes = _folders(test_root)
    for name in classes:
        if name not in test_classes:
            raise DataError(f"class {name!r} of {train_root} is missing in {test_root}")
    for name in test_classes:
        if name not in classes:
            raise DataError(f"class {name!r} of {test_root} is missing in {train_root}")
    train = _join([_images(train_root / name) for name in classes])
    test = _join([_images(test_root / name) for name in classes])
    return Listing(root, tuple(classes), train, test)


def list_tiny_imagenet(root: Path) -> Listing:
    """List Tiny-ImageNet-200 as published; classes in the order of ``wnids.txt``.

    The layout: ``wnids.txt``, ``train/<wnid>/images/*``, ``val/images/*`` and
    ``val/val_annotations.txt``. The validation set serves as test set, as the published test set
    has no labels.

    Raises:
        DataError: a file or class is missing, or lists and folders differ.
    """
    classes = [line.strip() for line in _lines(root / "wnids.txt") if line.strip()]
    if len(set(classes)) != len(classes):
        raise DataError(f"{root / 'wnids.txt'} names a class twice")
    train_root = root / "train"
    if not train_root.is_dir():
        raise DataError(f"{train_root} is missing: expected train/<wnid>/images/*.JPEG")
    folders = _folders(train_root)
    for name in classes:
        if name not in folders:
            raise DataError(f"class {name} of {root / 'wnids.txt'} has no folder in {train_root}")
    for name in folders:
        if name not in classes:
            raise DataError(f"folder {train_root / name} is not in {root / 'wnids.txt'}")
    train = _join([_images(train_root / name / "images") for name in classes])
    return Listing(root, tuple(classes), train, _annotated(root / "val", classes))


def _annotated(val_root: Path, classes: list[str]) -> Split:
    annotations = val_root / "val_annotations.txt"
    label_of = {name: label for label, name in enumerate(classes)}
    labels: dict[str, int] = {}
    for number, line in enumerate(_lines(annotations), start=1):
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in label_of:
            raise DataError(
                f"{annotations}, line {number}: expected a file name, a tab and a class of "
                f"wnids.txt, got {line[:80]!r}"
            )
        labels[fields[0]] = label_of[fields[1]]
    paths = _images(val_root / "images")
    present = {path.name for path in paths}
    for name in labels:
        if name not in present:
            raise DataError(f"{val_root / 'images' / name} is in {annotations}, but missing")
    for path in paths:
        if path.name not in labels:
            raise DataError(f"{path} has no line in {annotations}")
    seen = set(labels.values())
    for name in classes:
        if label_of[name] not in seen:
            raise DataError(f"class {name} is missing in {annotations}")
    return Split(tuple(paths), tuple(labels[path.name] for path in paths))


def _folders(root: Path) -> list[str]:
    return sorted(entry.name for entry in _entries(root) if entry.is_dir())


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is missing")
    names = sorted(
        entry.name
        for entry in _entries(folder)
        if os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES
    )
    if not names:
        raise DataError(f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return [folder / name for name in names]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error}") from error


def _join(images_of_class: list[list[Path]]) -> Split:
    paths = tuple(path for images in images_of_class for path in images)
    labels = tuple(label for label, images in enumerate(images_of_class) for _ in images)
    return Split(paths, labels)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(f"{path} is missing: is {path.parent} complete?") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
