"""The one setting in which PyTorch's gradient of all filters, along with the input's, is faster.

By ``bench/results/cpu-x86_64-2-threads-ways.json``, which has every layer of the paper's networks
with every number of learned filters: in 1 of 544 settings (1x1, 24 to 48 channels, 33 of them
learned) the compiled kernel takes 1.09 of the time of all filters; in all others at most 1.03.
"""

from __future__ import annotations


def all_filters_are_faster(shape: tuple[int, ...], out_channels: int) -> bool:
    """Whether PyTorch's gradients of the input and of all filters at once take less time on the CPU
    than the gradients of the input and of the learned filters separately.

    Args:
        shape: of the learned filters ``[n, C, kH, kW]``, a slice of dimension 0, of one group.
    """
    filters, channels, rows, columns = shape
    # The kernel pads channels to 16, PyTorch's library pads filters.
    padded = 16 < channels < 32 and rows * columns == 1
    return padded and 3 * filters >= 2 * out_channels - 2
