"""Padding given as "same" or "valid"."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from maskedconv.ops.geometry import Pair, pair


def evenly_padded(
    input: Tensor, kernel: Sequence[int], stride: Pair, padding: str, dilation: Pair
) -> tuple[Tensor, tuple[int, int]]:
    """The input and the padding in pixels of a convolution that pads all sides evenly.

    Args:
        input: ``[N, C, H, W]`` or ``[C, H, W]``.
        kernel: rows and columns.
        padding: "same" or "valid".

    Raises:
        ValueError: ``padding`` is neither, or "same" with a stride.
    """
    if padding == "valid":
        return input, (0, 0)
    if padding != "same":
        raise ValueError(f"padding is {padding!r}; expected a number, a pair, 'same' or 'valid'")
    if pair(stride) != (1, 1):
        raise ValueError(f"padding is 'same' with stride {stride}; expected stride 1")
    total = [d * (k - 1) for d, k in zip(pair(dilation), kernel, strict=True)]
    if any(t % 2 for t in total):
        # One more row or column at the end, as PyTorch's convolution does.
        input = F.pad(input, (0, total[1] % 2, 0, total[0] % 2))
    return input, (total[0] // 2, total[1] // 2)
