"""Image files to uint8 arrays, decoded once and cached.

Every image becomes 8-bit RGB. Grey and palette images are converted, transparency is dropped, and
the EXIF orientation is applied. Only the first frame or page of a file is used, and the number of
such files is reported. 16-bit colours keep their upper 8 bits, as Pillow reads them. Grey values of
more than 8 bits are refused, because their range is unknown.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from maskedconv.data.cache import Images, cache_file, fingerprint, read_cache, write_cache
from maskedconv.data.errors import DataError, optional_import, say
from maskedconv.data.listing import Listing

# Modes with more than one byte per value: a conversion to RGB would clip the values silently.
_DEEP_MODES = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
_ORIENTATION = 0x0112


def decode_listing(listing: Listing) -> tuple[Images, Images]:
    """Training and test images of ``listing``, each uint8 [N, 3, H, W], from the cache if possible.

    A folder's cache file is valid until the name, size, times or inode of an image changes.
    It is stored in the user's cache folder or in ``MASKEDCONV_CACHE``. Errors of the cache are
    reported, not raised.

    Raises:
        DataError: an image cannot be decoded or has another size than the first.
    """
    paths = (*listing.train.paths, *listing.test.paths)
    cache, files = cache_file(listing.root), fingerprint(listing.root, paths)
    images = read_cache(cache, files, len(paths))
    if images is None:
        say(f"decoding {len(paths):,} images of {listing.root} (once; then cached in {cache})")
        images = decode_images(paths)
        write_cache(cache, files, images)
    split = len(listing.train.paths)
    return images[:split], images[split:]


def decode_images(paths: tuple[Path, ...]) -> Images:
    """Decode image files of one size to uint8 RGB [N, 3, H, W]; errors as ``decode_listing``."""
    first, _ = _decode(paths[0])
    images = np.empty((len(paths), *first.shape), np.uint8)
    starts = range(0, len(paths), 256)
    remarks: list[str] = [""] * len(paths)

    def fill(start: int) -> None:
        for index in range(start, min(start + 256, len(paths))):
            image, remarks[index] = _decode(paths[index])
            if image.shape != first.shape:
                raise DataError(
                    f"{paths[index]} has {_size(image)} pixels, but {paths[0]} has {_size(first)}: "
                    "all images must have one size"
                )
            images[index] = image

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        chunks = [pool.submit(fill, start) for start in starts]
        try:
            for chunk in chunks:
                chunk.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    _say_remarks(paths, remarks)
    return images


def _say_remarks(paths: tuple[Path, ...], remarks: list[str]) -> None:
    for remark in sorted(set(remarks) - {""}):
        index = remarks.index(remark)
        say(f"{remarks.count(remark):,} images {remark} (such as {paths[index]})")


def _decode(path: Path) -> tuple[Images, str]:
    """The pixels, uint8 [3, H, W], and a remark to report about the file."""
    with opened_rgb(path) as (image, remark):
        pixels = np.asarray(image)
    return pixels.transpose(2, 0, 1), remark


@contextmanager
def opened_rgb(path: Path) -> Iterator[tuple[Any, str]]:
    """Pillow's image of the file in RGB, and a remark to report about it.

    Raises:
        DataError: it cannot be read as an image, inside the ``with`` block too.
    """
    try:
        with optional_import("PIL.Image").open(path) as image:
            yield _in_rgb(image, path)
    except (DataError, ImportError):
        raise
    # Pillow's decoders raise errors of any type for truncated files and files that are no images.
    except Exception as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from error


def _in_rgb(image: Any, path: Path) -> tuple[Any, str]:
    if image.mode in _DEEP_MODES:
        raise DataError(f"{path} has pixels of mode {image.mode}; expected 8-bit images")
    remark = ""
    if getattr(image, "is_animated", False):
        remark = "have several frames: the first of each is used"
        image.seek(0)
    if image.getexif().get(_ORIENTATION, 1) != 1:
        remark = "are turned as their EXIF orientation says"
        image = optional_import("PIL.ImageOps").exif_transpose(image)
    return image.convert("RGB"), remark


def _size(image: Images) -> str:
    return f"{image.shape[2]}×{image.shape[1]}"
