"""Image files to uint8 arrays, decoded once and cached."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maskedconv.data.errors import DataError, optional_import, say
from maskedconv.data.listing import Listing

Images = npt.NDArray[np.uint8]

_CACHE_FORMAT = 1
# Modes whose pixels are not bytes: turning them to RGB would clip the values silently.
_DEEP_MODES = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})


def decode_listing(listing: Listing) -> tuple[Images, Images]:
    """Training and test images of ``listing``, each uint8 [N, 3, H, W], from the cache if there.

    The cache file of a folder holds until a file's name, size or time of change differs. It lies
    in the user's cache folder, or in ``MASKEDCONV_CACHE``. Trouble with it is reported, not raised.

    Raises:
        DataError: an image cannot be decoded or has another size than the first.
    """
    paths = (*listing.train.paths, *listing.test.paths)
    cache = cache_file(listing.root)
    fingerprint = _fingerprint(listing.root, paths)
    images = _read_cache(cache, fingerprint)
    if images is None:
        say(f"decoding {len(paths):,} images of {listing.root} (once; then kept in {cache})")
        images = decode_images(paths)
        _write_cache(cache, fingerprint, images)
    split = len(listing.train.paths)
    return images[:split], images[split:]


def decode_images(paths: tuple[Path, ...]) -> Images:
    """Decode image files of one size to uint8 RGB [N, 3, H, W]; errors as ``decode_listing``."""
    first = _decode(paths[0])
    images = np.empty((len(paths), *first.shape), np.uint8)

    def fill(start: int) -> None:
        for index in range(start, min(start + 256, len(paths))):
            image = _decode(paths[index])
            if image.shape != first.shape:
                raise DataError(
                    f"{paths[index]} has {_size(image)} pixels, but {paths[0]} has {_size(first)}: "
                    "all images must have one size"
                )
            images[index] = image

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        chunks = [pool.submit(fill, start) for start in range(0, len(paths), 256)]
        try:
            for chunk in chunks:
                chunk.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return images


def cache_file(root: Path) -> Path:
    """The file that caches the decoded images of ``root``."""
    folder = os.environ.get("MASKEDCONV_CACHE") or optional_import("platformdirs").user_cache_dir(
        "maskedconv"
    )
    digest = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    return Path(folder) / f"images-{digest}.npz"


def _decode(path: Path) -> Images:
    image_module = optional_import("PIL.Image")
    try:
        with image_module.open(path) as image:
            if image.mode in _DEEP_MODES:
                raise DataError(f"{path} has pixels of mode {image.mode}; expected 8-bit images")
            pixels = np.asarray(image.convert("RGB"))
    except DataError:
        raise
    # Pillow's decoders raise all of these for files that are cut short or no images.
    except (OSError, SyntaxError, ValueError, image_module.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from error
    return pixels.transpose(2, 0, 1)


def _size(image: Images) -> str:
    return f"{image.shape[2]}×{image.shape[1]}"


def _fingerprint(root: Path, paths: tuple[Path, ...]) -> str:
    digest = hashlib.sha256(f"format {_CACHE_FORMAT}".encode())
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error}") from error
        entry = f"\0{path.relative_to(root)}\0{status.st_size}\0{status.st_mtime_ns}"
        digest.update(os.fsencode(entry))
    return digest.hexdigest()


def _read_cache(cache: Path, fingerprint: str) -> Images | None:
    try:
        with np.load(cache, allow_pickle=False) as stored:
            if stored["fingerprint"].item() != fingerprint:
                return None
            images: Images = stored["images"]
            return images
    except FileNotFoundError:
        return None
    # A damaged zip shows in its directory, its members' checksums or the arrays' headers.
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        say(f"cache {cache} cannot be used ({error}): reading the images again")
        return None


def _write_cache(cache: Path, fingerprint: str, images: Images) -> None:
    temporary = None
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache.parent, suffix=".tmp", delete=False) as file:
            temporary = Path(file.name)
            np.savez(file, fingerprint=np.array(fingerprint), images=images)
        temporary.replace(cache)
    except OSError as error:
        say(f"decoded images could not be kept in {cache} ({error}); they will be read again")
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
