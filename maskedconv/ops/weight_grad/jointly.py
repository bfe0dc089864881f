"""The one setting in which PyTorch's joint gradients of the input and all filters are faster.

Source: ``bench/results/cpu-x86_64-2-threads-ways.json``, with every layer of the paper's networks
and every number of learned filters. In 1 of 544 settings (1x1, 24 to 48 channels, 33 learned) the
compiled kernel takes 1.09 times as long as all filters; in all others at most 1.03 times.
"""

from __future__ import annotations


def all_filters_are_faster(shape: tuple[int, ...], out_channels: int) -> bool:
    """Whether PyTorch's joint gradients of the input and all filters are faster on the CPU than
    separate gradients of the input and the learned filters.

    Args:
        shape: shape of the learned filters ``[n, C, kH, kW]``: slice dimension 0, one group.
    """
    filters, channels, rows, columns = shape
    # The kernel pads channels to 16, oneDNN pads filters.
    padded = 16 < channels < 32 and rows * columns == 1
    return padded and 3 * filters >= 2 * out_channels - 2
