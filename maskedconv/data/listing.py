"""Finds image files on disk and checks their layout without opening one."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maskedconv.data.errors import DataError, say_once
from maskedconv.data.folders import PassedOver, class_folders, image_files, same_name


@dataclass(frozen=True)
class Split:
    """Image files of one split, with the class index of each."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]

    def take(self, chosen: Sequence[int]) -> Split:
        """The files of these indices."""
        return Split(tuple(self.paths[i] for i in chosen), tuple(self.labels[i] for i in chosen))


@dataclass(frozen=True)
class Listing:
    """All image files of a dataset below ``root``."""

    root: Path
    classes: tuple[str, ...]
    train: Split
    test: Split

    def train_per_class(self) -> dict[str, int]:
        """Number of training images of each class, by name."""
        counts = Counter(self.train.labels)
        return {name: counts[label] for label, name in enumerate(self.classes)}


def list_image_folder(root: Path) -> Listing:
    """List ``root/train/<class>/*`` and ``root/test/<class>/*`` (or ``val``, without a ``test``).

    Hidden files, files without an image suffix, and folders within a class folder are ignored and
    reported once. Names are compared and sorted in Unicode normal form C.

    Raises:
        DataError: a split or class is missing or empty, or the splits' classes differ.
    """
    passed_over = PassedOver(root)
    train_root = root / "train"
    test_root = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if not train_root.is_dir() or test_root is None:
        raise DataError(f"{root} is not an image folder: expected train/ and test/ (or val/) in it")
    if test_root.name == "test" and (root / "val").is_dir():
        passed_over.add("beside test", root / "val")
    classes = class_folders(train_root, passed_over)
    if not classes:
        raise DataError(f"{train_root} holds no class folders: expected {train_root}/<class>/*.jpg")
    test_classes = class_folders(test_root, passed_over)
    for name in classes:
        if name not in test_classes:
            raise DataError(f"class {name!r} of {train_root} is missing in {test_root}")
    for name in test_classes:
        if name not in classes:
            raise DataError(f"class {name!r} of {test_root} is missing in {train_root}")
    train = _join([image_files(folder, passed_over) for folder in classes.values()])
    test = _join([image_files(test_classes[name], passed_over) for name in classes])
    say_once(str(passed_over))
    return Listing(root, tuple(classes), train, test)


def list_tiny_imagenet(root: Path) -> Listing:
    """List Tiny-ImageNet-200 as published; classes in the order of ``wnids.txt``.

    The layout: ``wnids.txt``, ``train/<wnid>/images/*``, ``val/images/*`` and
    ``val/val_annotations.txt``. The validation set serves as the test set, because the published
    test set has no labels.

    Raises:
        DataError: a file or class is missing, or the lists and folders differ.
    """
    wnids, train_root = root / "wnids.txt", root / "train"
    classes = [line.strip() for line in _lines(wnids) if line.strip()]
    if len(set(classes)) != len(classes):
        raise DataError(f"{wnids} names a class twice")
    if not train_root.is_dir():
        raise DataError(f"{train_root} is missing: expected train/<wnid>/images/*.JPEG")
    passed_over = PassedOver(root)
    folders = class_folders(train_root, passed_over)
    for name in classes:
        if name not in folders:
            raise DataError(f"class {name} of {wnids} has no folder in {train_root}")
    for name, folder in folders.items():
        if name not in classes:
            raise DataError(f"folder {folder} is not in {wnids}")
    train = _join([image_files(folders[name] / "images", passed_over) for name in classes])
    test = _annotated(root / "val", classes, passed_over)
    say_once(str(passed_over))
    return Listing(root, tuple(classes), train, test)


def _annotated(val_root: Path, classes: list[str], passed_over: PassedOver) -> Split:
    annotations = val_root / "val_annotations.txt"
    label_of = {name: label for label, name in enumerate(classes)}
    labels = _annotations(annotations, label_of)
    paths = image_files(val_root / "images", passed_over)
    present = {same_name(path.name) for path in paths}
    for name in labels:
        if name not in present:
            raise DataError(f"{val_root / 'images' / name} is in {annotations}, but missing")
    for path in paths:
        if same_name(path.name) not in labels:
            raise DataError(f"{path} has no line in {annotations}")
    seen = set(labels.values())
    for name in classes:
        if label_of[name] not in seen:
            raise DataError(f"class {name} is missing in {annotations}")
    return Split(tuple(paths), tuple(labels[same_name(path.name)] for path in paths))


def _annotations(path: Path, label_of: dict[str, int]) -> dict[str, int]:
    """The label of each file that ``val_annotations.txt`` names."""
    labels: dict[str, int] = {}
    for number, line in enumerate(_lines(path), start=1):
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) < 2 or fields[1] not in label_of:
            raise DataError(
                f"{path}, line {number}: expected a file name, a tab and a class of "
                f"wnids.txt, got {line[:80]!r}"
            )
        label = label_of[fields[1]]
        if labels.setdefault(fields[0], label) != label:
            raise DataError(f"{path}, line {number}: {fields[0]} had another class before")
    return labels


def _join(images_of_class: list[list[Path]]) -> Split:
    paths = tuple(path for images in images_of_class for path in images)
    labels = tuple(label for label, images in enumerate(images_of_class) for _ in images)
    return Split(paths, labels)


def _lines(path: Path) -> list[str]:
    """The lines in Unicode normal form, without a byte order mark."""
    try:
        content = path.read_bytes()
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return same_name(content.decode("utf-16" if wide else "utf-8-sig")).splitlines()
    except FileNotFoundError:
        raise DataError(f"{path} is missing: is {path.parent} complete?") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
