"""MNIST as torchvision stores it: four files in the folder MNIST/raw."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
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
    """The folder above ``MNIST/raw`` with at least one of the files; None if there is none.

    Args:
        root: that folder, or ``MNIST`` or ``MNIST/raw`` in it; also by a relative path or a link.
    """
    for above in _places(root):
        if any(file.is_file() for file in _files(above)):
            return above
    return None


def missing(root: Path) -> Path | None:
    """The first file that is not in ``root/MNIST/raw``; None if all are."""
    return next((file for file in _files(root) if not file.is_file()), None)


def _places(root: Path) -> list[Path]:
    """The folders that may be above ``MNIST/raw``: ``root``, or one above it as its name says."""
    # A link may lead to MNIST/raw, or be a part of this path.
    return [root, *(_above(path) for path in (Path(os.path.abspath(root)), root.resolve()))]


def _above(path: Path) -> Path:
    return {"raw": path.parent.parent, "MNIST": path.parent}.get(path.name, path)


def _files(root: Path) -> dict[Path, int]:
    """Images and labels of both splits, in this order, and their number."""
    return {root / FOLDER / f"{split}-{name}": count for split, count in _SPLITS for name in _NAMES}


def fetch(root: Path) -> None:
    """Downloads the files to ``root/MNIST/raw``, as torchvision does; replaces damaged ones.

    Raises:
        MissingDataError: they could not be fetched.
        OSError: a file that is there cannot be read; nothing is replaced.
    """
    dataset = optional_import("torchvision.datasets").MNIST
    damaged = {
        file: count
        for file, count in _files(root).items()
        if os.path.lexists(file) and not _is_whole(file, count)
    }
    try:
        with _moved_away(damaged), contextlib.redirect_stdout(sys.stderr):
            dataset(str(root), download=True)
    except (OSError, RuntimeError, EOFError) as error:
        raise MissingDataError(f"MNIST could not be fetched into {root}: {error}") from error


def _is_whole(file: Path, count: int) -> bool:
    try:
        _read_file(file, count)
    except DataError:
        return False
    return True


@contextlib.contextmanager
def _moved_away(files: dict[Path, int]) -> Iterator[None]:
    """Context in which damaged files have another name, as torchvision takes each file that is
    there for a whole one. One that has no whole successor after it gets its name back.
    """
    moved = {file: file.rename(file.with_name(f"{file.name}.damaged")) for file in files}
    try:
        yield
    finally:
        for file, away in moved.items():
            if _is_whole(file, files[file]):
                away.unlink()
            else:
                away.replace(file)


def read(root: Path) -> tuple[Part, Part]:
    """Training and test images uint8 [N, 1, 28, 28], and labels [N], of ``root/MNIST/raw``.

    Raises:
        DataError: a file is missing or damaged; names it.
        OSError: a file cannot be read; names it.
    """
    arrays = [_read_file(file, count) for file, count in _files(root).items()]
    train, train_labels, test, test_labels = arrays
    return (
        (train[:, None].astype(np.uint8), train_labels),
        (test[:, None].astype(np.uint8), test_labels),
    )


def _read_file(file: Path, count: int) -> npt.NDArray[np.int64]:
    """The array of a file, if it has ``count`` images or labels.

    Raises:
        MissingDataError: there is no such file.
        DataError: it has other content.
        OSError: it cannot be read, which says nothing about its content.
    """
    module = optional_import("torchvision.datasets.mnist")
    images = file.name.endswith(_NAMES[0])
    read = module.read_image_file if images else module.read_label_file
    shape = (count, 28, 28) if images else (count,)
    try:
        found: npt.NDArray[np.int64] = np.asarray(read(str(file)))
    except FileNotFoundError as error:
        raise MissingDataError(f"{file} is missing") from error
    except OSError as error:
        error.filename = error.filename or str(file)
        raise
    # Errors of a damaged file: a wrong beginning (AssertionError, TypeError, KeyError), a size
    # that does not fit (ValueError, RuntimeError), none (IndexError).
    except (AssertionError, KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise DataError(f"{file} is truncated or damaged: {error}") from error
    if found.shape != shape:
        raise DataError(f"{file} has the shape {found.shape}; expected {shape}")
    return found
