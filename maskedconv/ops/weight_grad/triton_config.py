"""Tile sizes of weight_grad's Triton kernels, as a pure function of the problem's sizes.

They are derived from registers, padding and the cost of index arithmetic, not from measurements.
"""

from __future__ import annotations

import math
from typing import NamedTuple

MAX_PER_TAP = 9  # taps with one accumulator each; more would not fit into registers


class Configuration(NamedTuple):
    """Tile sizes of one kernel.

    Attributes:
        per_tap: whether there is one product per tap, with ``block_columns`` filters; otherwise
            there is a single product with ``block_columns`` pairs of filter and tap.
        block_channels, block_pixels: size of the input's tile.
        warps, stages: launch options.
    """

    per_tap: bool
    block_channels: int
    block_pixels: int
    block_columns: int
    warps: int
    stages: int


class Split(NamedTuple):
    """A split of the pixels into ``parts`` runs of ``tiles`` tiles; the last may be shorter."""

    parts: int
    tiles: int


def choose(channels: int, filters: int, taps: int) -> Configuration:
    """The tiles for ``filters`` learned filters of ``taps`` taps over ``channels`` channels.

    A single product over all pairs of filter and tap has the least padding, but computes an address
    for every element. One product per tap reads contiguous filters. Few pairs use a single product;
    many use one per tap, unless there are too many taps.
    """
    pairs = filters * taps
    per_tap = taps == 1 or (pairs > 64 and taps <= MAX_PER_TAP)
    if per_tap:
        columns = 64 if taps == 1 and filters > 16 else 16
    else:
        columns = 16 if pairs <= 16 else 64 if pairs <= 64 else 128
    block_channels = 128 if columns < 128 and _fits_wide_blocks(channels) else 64
    warps = 8 if block_channels == 128 or columns == 128 or (taps == 1 and columns == 64) else 4
    # A thread stores the addresses of its part of a tile in registers; narrower tiles need fewer.
    # With one gradient tile per tap, 64 pixels in float32 would need 168 KiB of shared memory.
    narrow = columns // warps >= 8 or (per_tap and (warps == 4 or taps > 1))
    block_pixels, stages = (32, 4) if narrow else (64, 3)
    return Configuration(per_tap, block_channels, block_pixels, columns, warps, stages)


def _fits_wide_blocks(channels: int) -> bool:
    """Whether blocks of 128 channels would waste at most a quarter."""
    return channels > 64 and 128 * math.ceil(channels / 128) <= 1.25 * channels


def list_configurations() -> list[Configuration]:
    """All possible results of :func:`choose`."""
    kernels = [(1, 16), (1, 64), (9, 1), (9, 7), (9, 8), (25, 8)]
    found = (choose(channels, n, taps) for taps, n in kernels for channels in (64, 128))
    return list(dict.fromkeys(found))


def column_blocks(configuration: Configuration, filters: int, taps: int) -> int:
    """The number of blocks of columns (filters, or pairs of filter and tap)."""
    columns = filters if configuration.per_tap else filters * taps
    return math.ceil(columns / configuration.block_columns)


def split_pixels(
    configuration: Configuration, channels: int, columns: int, pixels: int, processors: int
) -> Split:
    """Splits the pixels into runs that fill ``processors`` multiprocessors about twice.

    Args:
        columns: number of blocks of columns, from :func:`column_blocks`.
    """
    blocks = math.ceil(channels / configuration.block_channels) * columns
    tiles = math.ceil(pixels / configuration.block_pixels)
    parts = max(1, min(tiles, 2 * processors // blocks))
    run = math.ceil(tiles / parts)
    return Split(math.ceil(tiles / run), run)
