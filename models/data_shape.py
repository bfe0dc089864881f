"""The shape of the data that a network is made for."""

from __future__ import annotations

from dataclasses import dataclass

from maskedconv.models.checks import check_count


@dataclass(frozen=True)
class DataShape:
    """Images ``[N, in_channels, image_size, image_size]`` of ``num_classes`` classes.

    Raises:
        TypeError, ValueError: a value is not an int of at least 1; the message names it.
    """

    num_classes: int = 10
    in_channels: int = 3
    image_size: int = 32

    def __post_init__(self) -> None:
        for argument in ("num_classes", "in_channels", "image_size"):
            check_count(argument, getattr(self, argument))
