"""The settings in which PyTorch's joint gradients of the input and all filters are faster.

Source: every layer of the paper's networks on a CPU with AVX-512 and two threads. In float32
(``bench/results/cpu-x86_64-2-threads-ways.json``) it is 1 of 544 settings: 1x1, 24 to 48 channels,
33 learned. In bfloat16 (``bench/README.md``) the operands are half as large, so that in 1x1
layers with two thirds learned Python takes more time than is saved.
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
    if rows * columns > 1:
        return ()
    most = 3 * filters >= 2 * out_channels - 2
    types = []
    # The kernel pads channels to 16, oneDNN pads filters.
    if most and 16 < channels < 32:
        types += [torch.float32, torch.float64, torch.float16]
    if (most and out_channels <= 64) or (channels <= 16 and 8 * filters >= 3 * out_channels):
        types.append(torch.bfloat16)
    return tuple(types)
