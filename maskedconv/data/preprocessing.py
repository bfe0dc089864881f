"""How an image file becomes the input of a trained network."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskedconv.data.augment import normalise
from maskedconv.data.decode import opened_rgb
from maskedconv.schema import Schema, count, list_of, number, record

# Of Pillow.
Image = Any
schema: Schema = record(
    dict.fromkeys(("channels", "size", "resize"), count)
    | dict.fromkeys(("mean", "std"), list_of(number))
)


@dataclass(frozen=True)
class Preprocessing:
    """Turns an image of any size into float32 ``[channels, size, size]``, as in the test set.

    The shorter side becomes ``resize`` pixels, the middle ``size`` × ``size`` pixels are cut out,
    and each channel is normalised as (value / 255 - mean) / std.

    Attributes:
        channels: 3 for RGB, 1 for grey.
        mean, std: of each channel, in fractions of 255.
    """

    channels: int
    size: int
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"channels is {self.channels}; expected 1 or 3")
        if not 0 < self.size <= self.resize:
            raise ValueError(f"size is {self.size}; expected 1 to resize, {self.resize}")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(
                f"mean and std have {len(self.mean)} and {len(self.std)} values; expected "
                f"{self.channels}, one for each channel"
            )

    def __call__(self, image: Image) -> Tensor:
        """A Pillow image as float32 ``[channels, size, size]``."""
        middle = centre(image.convert("RGB" if self.channels == 3 else "L"), self.resize, self.size)
        return normalise(pixels(middle)[None], self.mean, self.std, channels_last=False)[0]

    def read(self, path: Path) -> Tensor:
        """The image file ``path`` as float32 ``[channels, size, size]``.

        Raises:
            DataError: the file cannot be read as an image.
        """
        with opened_rgb(path) as (image, _):
            return self(image)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Preprocessing:
        """The inverse of :meth:`to_json`, of values that match ``schema``."""
        lists = {name: tuple(values[name]) for name in ("mean", "std")}
        return cls(**{**values, **lists})


def centre(image: Image, resize: int, size: int) -> Image:
    """The middle ``size`` × ``size`` pixels of ``image``, whose shorter side becomes ``resize``."""
    scale = resize / min(image.size)
    width, height = (max(resize, round(side * scale)) for side in image.size)
    left, upper = (width - size) // 2, (height - size) // 2
    whole = image.resize((width, height), bilinear())
    return whole.crop((left, upper, left + size, upper + size))


def bilinear() -> Any:
    """Pillow's name of bilinear resampling."""
    from PIL.Image import Resampling

    return Resampling.BILINEAR


def pixels(image: Image) -> Tensor:
    """uint8 [C, H, W] of an image in RGB (C = 3) or grey (C = 1)."""
    values = torch.from_numpy(np.array(image))
    return values[None] if values.dim() == 2 else values.permute(2, 0, 1)
