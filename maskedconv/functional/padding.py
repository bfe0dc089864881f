"""The padding of a convolution in pixels, also if it is given as "same" or "valid"."""

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
    pixels, (rows, columns) = padding_of(kernel, stride, padding, dilation)
    # One more row or column at the end, as PyTorch's convolution does.
    return F.pad(input, (0, columns, 0, rows)) if rows or columns else input, pixels


def padding_of(
    kernel: Sequence[int], stride: Pair, padding: Pair | str, dilation: Pair
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The padding of all sides, and that of the end alone; (rows, columns) in pixels.

    It depends on the arguments that PyTorch's convolution reads, and on nothing that ``nn.Conv2d``
    derives from them when it is made.

    Raises:
        ValueError: ``padding`` is another string than "same" or "valid", or "same" with a stride.
    """
    if not isinstance(padding, str):
        return pair(padding), (0, 0)
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding != "same":
        raise ValueError(f"padding is {padding!r}; expected a number, a pair, 'same' or 'valid'")
    if pair(stride) != (1, 1):
        raise ValueError(f"padding is 'same' with stride {stride}; expected stride 1")
    rows, columns = (d * (k - 1) for d, k in zip(pair(dilation), kernel, strict=True))
    return (rows // 2, columns // 2), (rows % 2, columns % 2)
