"""The settings in which PyTorch's joint gradients of the input and all filters are faster.

Source: every layer of the paper's networks on a CPU with AVX-512 and two threads. In float32
(``python -m bench.ways``) it is 1 of 544 settings: 1x1, 24 to 48 channels,
33 learned. In bfloat16 (``bench/README.md``) PyTorch's gradients take half the time, so that in
small layers with two thirds learned Python takes more time than is saved.
"""

from __future__ import annotations

import torch


def types_faster_jointly(shape: tuple[int, ...], out_channels: int) -> tuple[torch.dtype, ...]:
    """The types for which PyTorch's joint gradients of the input and all filters are faster on the
    CPU than separate gradients of the input and the learned filters.

    Args:
        shape: shape of the learned filters ``[n, C, kH, kW]``: slice dimension 0, one group.
    """
    filters, channels, rows, columns = shape
    one_tap = rows * columns == 1
    most = 3 * filters >= 2 * out_channels - 2
    types = []
    # The kernel pads channels to 16, oneDNN pads filters.
    if most and one_tap and 16 < channels < 32:
        types += [torch.float32, torch.float64, torch.float16]
    small = most and out_channels <= (64 if one_tap else 16) and (one_tap or channels < 16)
    if small or (one_tap and channels <= 16 and 8 * filters >= 3 * out_channels):
        types.append(torch.bfloat16)
    return tuple(types)
