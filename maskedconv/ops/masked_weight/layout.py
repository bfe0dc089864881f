"""Memory order of dense tensors, for kernels that visit memory and need row-major indices."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_MOST_DIMS = 4


class Layout(NamedTuple):
    """A dense tensor's dimensions from slowest to fastest in memory, four of them.

    Attributes:
        sizes: their sizes, 1 for those that the tensor does not have.
        steps: what an index of each adds to the row-major index.
    """

    sizes: tuple[int, int, int, int]
    steps: tuple[int, int, int, int]


def layout_of(tensor: Tensor) -> Layout | None:
    """The layout, or None if elements are not side by side or more dimensions are permuted."""
    if tensor.is_contiguous():
        return Layout((1, 1, 1, tensor.numel()), (0, 0, 0, 1))
    dims = [dim for dim in range(tensor.dim()) if tensor.size(dim) != 1]
    dims.sort(key=tensor.stride, reverse=True)
    expected = 1
    for dim in reversed(dims):
        if tensor.stride(dim) != expected:
            return None
        expected *= tensor.size(dim)
    if len(dims) > _MOST_DIMS:
        return None
    steps = [1] * tensor.dim()
    for dim in reversed(range(tensor.dim() - 1)):
        steps[dim] = steps[dim + 1] * tensor.size(dim + 1)
    missing = _MOST_DIMS - len(dims)
    sizes = (1,) * missing + tuple(tensor.size(dim) for dim in dims)
    return Layout(sizes, (0,) * missing + tuple(steps[dim] for dim in dims))  # type: ignore[arg-type]


def dense_copy(tensor: Tensor) -> tuple[Tensor, Layout]:
    """The tensor itself if it has a layout, else a contiguous copy; and the layout."""
    layout = layout_of(tensor)
    if layout is not None:
        return tensor, layout
    tensor = tensor.contiguous()
    return tensor, Layout((1, 1, 1, tensor.numel()), (0, 0, 0, 1))


def in_layout_of(dense: Tensor, tensor: Tensor) -> Tensor:
    """``tensor``, or a copy with the strides of ``dense``, whose elements are side by side."""
    if tensor.stride() == dense.stride():
        return tensor
    return torch.empty_like(dense, dtype=tensor.dtype).copy_(tensor.detach())


def why_no_layout(weight: Tensor) -> str:
    """The reason why a result like ``weight`` has no layout, or an empty string."""
    if weight.dim() > _MOST_DIMS and not weight.is_contiguous():
        return f"its kernel is for at most {_MOST_DIMS} permuted dimensions, not {weight.dim()}"
    return ""


def result_like(weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Layout]:
    """New memory in the memory format of ``weight``, and its layout; see :func:`why_no_layout`."""
    out = torch.empty_like(weight, dtype=dtype, requires_grad=False)
    layout = layout_of(out)
    assert layout is not None
    return out, layout
