"""Small image files in the layouts that the data loaders read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, value: int, size: int = 8, mode: str = "RGB") -> None:
    """An image whose pixels are ``value``, except for one black row at the top."""
    pixels = np.full((size, size, 3), value, np.uint8)
    pixels[0] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)


def write_folder(root: Path, classes=("cat", "dog"), size=8, suffix=".png", test="test") -> Path:
    """Three training and two test images of each class; the n-th class has value 10n + 1."""
    for number, name in enumerate(classes):
        for split, count in (("train", 3), (test, 2)):
            for index in range(count):
                path = root / split / name / f"{index}{suffix}"
                write_image(path, 10 * number + 1, size)
    return root


def damage(path: Path, keep: int = 100) -> Path:
    """Truncates a file."""
    path.write_bytes(path.read_bytes()[:keep])
    return path
