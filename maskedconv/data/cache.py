"""Cache of a folder's decoded images: one file, validated when it is read.

The file consists of one line of JSON and the pixels as they are in memory. The line has the shape,
a fingerprint of the image files, and a SHA-256 of shape and pixels.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maskedconv.data.errors import DataError, optional_import, say
from maskedconv.io import replacing
from maskedconv.schema import count, list_of, one_of, read_json, record, text

Images = npt.NDArray[np.uint8]

_FORMAT = 2
_LONGEST_LINE = 1000
_header = record(
    {
        "format": one_of(_FORMAT),
        "files": text,
        "shape": list_of(count, 4),
        "sha256": text,
    }
)


def cache_file(root: Path) -> Path:
    """The file that caches the decoded images of ``root``."""
    folder = os.environ.get("MASKEDCONV_CACHE") or optional_import("platformdirs").user_cache_dir(
        "maskedconv"
    )
    digest = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    return Path(folder) / f"images-{digest}.cache"


def fingerprint(root: Path, paths: tuple[Path, ...]) -> str:
    """Hash of each file's name, size, times of modification and of status change, and inode.

    A folder that is renamed keeps the names, sizes and times of its files, but not their inodes.
    A copy of a file has another inode, so that the images are decoded once more.

    Raises:
        DataError: a file cannot be found.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error}") from error
        times = f"{status.st_mtime_ns}\0{status.st_ctime_ns}"
        entry = f"\0{path.relative_to(root)}\0{status.st_size}\0{times}\0{status.st_ino}"
        digest.update(os.fsencode(entry))
    return digest.hexdigest()


def read_cache(cache: Path, files: str, number: int) -> Images | None:
    """The ``number`` cached images with the fingerprint ``files``, [N, 3, H, W].

    Returns None if the cache is missing or has another fingerprint, and, with a warning, if the
    file is damaged.
    """
    try:
        with cache.open("rb") as file:
            header = read_json(file.readline(_LONGEST_LINE), _header, "its first line")
            if header["files"] != files:
                return None
            shape = tuple(header["shape"])
            size = os.fstat(file.fileno()).st_size - file.tell()
            # Checked before memory is allocated.
            if shape[:2] != (number, 3) or math.prod(shape) != size:
                raise ValueError(f"{size:,} bytes and shape {shape}; expected {number:,} images")
            images = np.empty(shape, np.uint8)
            if file.readinto(_bytes(images)) != size or _digest(images) != header["sha256"]:
                raise ValueError("the pixels do not match their SHA-256")
            return images
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        say(f"cache {cache} cannot be used ({error}): decoding the images again")
        return None


def write_cache(cache: Path, files: str, images: Images) -> None:
    """Stores the images; warns if the file cannot be written."""
    header = {
        "format": _FORMAT,
        "files": files,
        "shape": images.shape,
        "sha256": _digest(images),
    }
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with replacing(cache) as file:
            file.write(json.dumps(header).encode() + b"\n")
            file.write(_bytes(images))
    except OSError as error:
        say(f"decoded images could not be cached in {cache} ({error})")


def _digest(images: Images) -> str:
    digest = hashlib.sha256(str(images.shape).encode())
    digest.update(_bytes(images))
    return digest.hexdigest()


def _bytes(images: Images) -> memoryview:
    return memoryview(images.reshape(-1))  # type: ignore[arg-type]
