"""MNIST as torchvision stores it: four files in the folder MNIST/raw."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maskedconv.data.errors import DataError, MissingDataError, optional_import

FOLDER = Path("MNIST", "raw")
# Images and labels of both splits, and how many there are.
_SPLITS = (("train", 60_000), ("t10k", 10_000))
_NAMES = ("images-idx3-ubyte", "labels-idx1-ubyte")

Part = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


def find(root: Path) -> Path | None:
    """The folder above ``MNIST/raw`` of a complete copy; None if there is none.

    Args:
        root: that folder, or ``MNIST`` or ``MNIST/raw`` in it; also by a relative path or a link.

    Raises:
        MissingDataError: a file is missing beside the others.
    """
    for above in _places(root):
        files = [above / FOLDER / name for name in _files()]
        there = [file.is_file() for file in files]
        if all(there):
            return above
        if any(there):
            raise MissingDataError(f"{files[there.index(False)]} is missing")
    return None


def _places(root: Path) -> list[Path]:
    """The folders that may be above ``MNIST/raw``: ``root``, or one above it as its name says."""
    # A link may lead to MNIST/raw, or be a part of this path.
    return [root, *(_above(path) for path in (Path(os.path.abspath(root)), root.resolve()))]


def _above(path: Path) -> Path:
    return {"raw": path.parent.parent, "MNIST": path.parent}.get(path.name, path)


def _files() -> list[str]:
    return [f"{split}-{name}" for split, _ in _SPLITS for name in _NAMES]


def fetch(root: Path) -> None:
    """Downloads the files to ``root/MNIST/raw``, as torchvision does.

    Raises:
        MissingDataError: they could not be fetched.
    """
    dataset = optional_import("torchvision.datasets").MNIST
    try:
        with contextlib.redirect_stdout(sys.stderr):
            dataset(str(root), download=True)
    except (OSError, RuntimeError, EOFError) as error:
        raise MissingDataError(f"MNIST could not be fetched into {root}: {error}") from error


def read(root: Path) -> tuple[Part, Part]:
    """Training and test images uint8 [N, 1, 28, 28], and labels [N], of ``root/MNIST/raw``.

    Raises:
        DataError: a file is damaged; names it.
    """
    train, test = (_split(root / FOLDER, *split) for split in _SPLITS)
    return train, test


def _split(folder: Path, name: str, count: int) -> Part:
    reader = optional_import("torchvision.datasets.mnist")
    images, labels = (folder / f"{name}-{kind}" for kind in _NAMES)
    pixels = _checked(images, reader.read_image_file, (count, 28, 28))
    return pixels[:, None].astype(np.uint8), _checked(labels, reader.read_label_file, (count,))


def _checked(
    file: Path, read: Callable[[str], npt.NDArray[np.int64]], shape: tuple[int, ...]
) -> npt.NDArray[np.int64]:
    """The array of ``file``, if it has the shape."""
    try:
        found = np.asarray(read(str(file)))
    # What a damaged file raises: a wrong beginning (AssertionError, TypeError, KeyError), a size
    # that does not fit (ValueError, RuntimeError), none (IndexError).
    except (
        *(OSError, AssertionError, KeyError, TypeError, ValueError, RuntimeError, IndexError),
    ) as error:
        raise DataError(f"{file} is truncated or damaged: {error}; fetch it again") from error
    if found.shape != shape:
        raise DataError(f"{file} has the shape {found.shape}; expected {shape}")
    return found
