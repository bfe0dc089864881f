"""Images as kernels read them, and a BatchNorm's numbers for their channels.

The latter are float32, side by side.
"""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor

from maskedconv.ops.geometry import pixel_pitch
from maskedconv.ops.plain import address

STATISTICS = 5  # rows of a table of statistics: see Normalisation of ops/bn_relu/problem.py


def image(tensor: Tensor | None) -> tuple[int, int]:
    """Address of ``[N, C, H, W]``, and the distance of its pixels in elements; zeros for None."""
    return (0, 0) if tensor is None else (address(tensor), pixel_pitch(tensor))


@overload
def of_channels(part: Tensor, channels: int) -> Tensor: ...
@overload
def of_channels(part: Tensor | None, channels: int) -> Tensor | None: ...
def of_channels(part: Tensor | None, channels: int) -> Tensor | None:
    """One number a channel, ``[C]``, itself or a copy; None for None.

    Raises:
        ValueError: they are of another number of channels.
    """
    if part is None:
        return None
    if part.shape != (channels,):
        raise ValueError(
            f"a BatchNorm's numbers have the shape {list(part.shape)}; expected [{channels}]"
        )
    # To ask is faster than a conversion that changes nothing.
    if part.dtype is torch.float32 and part.is_contiguous():
        return part
    return part.detach().to(torch.float32).contiguous()


def check_rows(table: Tensor, channels: int, rows: int = STATISTICS) -> None:
    """Checks a table ``[rows, C]`` of one number a channel in each row.

    Raises:
        ValueError: it is of another shape, of another type, or with gaps in a row.
    """
    apart = channels > 1 and table.stride(1) != 1
    if table.shape != (rows, channels) or table.dtype != torch.float32 or apart:
        raise ValueError(
            f"a BatchNorm's numbers have the shape {list(table.shape)}, {table.dtype}, strides "
            f"{list(table.stride())}; expected [{rows}, {channels}] of float32, side by side"
        )


def addresses_of_rows(table: Tensor, channels: int) -> list[int]:
    """Addresses of the rows of a table of statistics.

    Raises:
        ValueError: as :func:`check_rows`.
    """
    check_rows(table, channels)
    first, step = address(table), table.stride(0) * table.element_size()
    return [first + row * step for row in range(table.size(0))]


def image_of_rows(table: Tensor, channels: int, rows: int = STATISTICS) -> tuple[int, int]:
    """Address of such a table, and the distance of its rows in elements.

    Raises:
        ValueError: as :func:`check_rows`.
    """
    check_rows(table, channels, rows)
    return address(table), table.stride(0)
