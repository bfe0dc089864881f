"""Which tiles the Triton kernels of weight_grad use: a pure function of the problem's sizes.

Chosen by arithmetic (registers, padding, the index arithmetic on the gradient), not by measurement:
the kernels have not yet run on a GPU.
"""

from __future__ import annotations

import math
from typing import NamedTuple

MAX_PER_TAP = 9  # taps with an accumulator each; a larger kernel would not fit the registers


class Configuration(NamedTuple):
    """Tile sizes of one kernel.

    Attributes:
        per_tap: one product a tap, of ``block_columns`` filters each; else a single product, of
            ``block_columns`` pairs of filter and tap.
        block_channels, block_pixels: of the input's tile.
        warps, stages: of the launch.
    """

    per_tap: bool
    block_channels: int
    block_pixels: int
    block_columns: int
    warps: int
    stages: int


class Split(NamedTuple):
    """The pixels in ``parts`` runs of ``tiles`` tiles each, the last perhaps shorter."""

    parts: int
    tiles: int


def choose(channels: int, filters: int, taps: int) -> Configuration:
    """The tiles for ``filters`` learned filters of ``taps`` taps over ``channels`` channels.

    One product over all pairs of filter and tap pads least, but computes an address for every
    element; a product a tap reads whole runs of filters. So few pairs share a product, and many
    have one a tap, unless there are too many taps for that.
    """
    pairs = filters * taps
    per_tap = taps == 1 or (pairs > 64 and taps <= MAX_PER_TAP)
    if per_tap:
        columns = 64 if taps == 1 and filters > 16 else 16
    else:
        columns = 16 if pairs <= 16 else 64 if pairs <= 64 else 128
    block_channels = 128 if columns < 128 and _fits_wide_blocks(channels) else 64
    warps = 8 if block_channels == 128 or columns == 128 or (taps == 1 and columns == 64) else 4
    # A thread keeps the addresses of its part of a tile in registers: narrower tiles need fewer.
    # With a gradient tile a tap, 64 pixels in float32 would also need 168 KiB of shared memory.
    narrow = columns // warps >= 8 or (per_tap and (warps == 4 or taps > 1))
    block_pixels, stages = (32, 4) if narrow else (64, 3)
    return Configuration(per_tap, block_channels, block_pixels, columns, warps, stages)


def _fits_wide_blocks(channels: int) -> bool:
    """Whether blocks of 128 channels would waste at most a quarter."""
    return channels > 64 and 128 * math.ceil(channels / 128) <= 1.25 * channels


def list_configurations() -> list[Configuration]:
    """Everything that :func:`choose` can return."""
    kernels = [(1, 16), (1, 64), (9, 1), (9, 7), (9, 8), (25, 8)]
    found = (choose(channels, n, taps) for taps, n in kernels for channels in (64, 128))
    return list(dict.fromkeys(found))


def column_blocks(configuration: Configuration, filters: int, taps: int) -> int:
    """How many blocks of columns (filters, or pairs of filter and tap) there are."""
    columns = filters if configuration.per_tap else filters * taps
    return math.ceil(columns / configuration.block_columns)


def split_pixels(
    configuration: Configuration, channels: int, columns: int, pixels: int, processors: int
) -> Split:
    """The runs of pixels that fill ``processors`` multiprocessors about twice.

    Args:
        columns: blocks of columns, from :func:`column_blocks`.
    """
    blocks = math.ceil(channels / configuration.block_channels) * columns
    tiles = math.ceil(pixels / configuration.block_pixels)
    parts = max(1, min(tiles, 2 * processors // blocks))
    run = math.ceil(tiles / parts)
    return Split(math.ceil(tiles / run), run)
